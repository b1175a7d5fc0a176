"""How a run's batch is divided over its processes: the arithmetic of sizes, before anything starts."""

from dataclasses import dataclass

from bionemo_core.config.recompute_options import Recompute
from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.plurals import format_count


@dataclass(frozen=True)
class BatchPlan:
    """Sizes that multiply: micro x accumulate x data parallel = global, in rows."""

    data_parallel_size: int
    tensor_parallel_size: int
    micro_batch_size: int
    accumulate_grad_batches: int
    global_batch_size: int
    pipeline_parallel_size: int = 1


def batch_plan(
    spec: RunSpec, world_size: int | None = None, *, frozen_global_batch_size: int | None = None
) -> BatchPlan:
    """Return the batch sizes of a run.

    Args:
        spec: the run.
        world_size: number of processes; devices x nodes by default.
        frozen_global_batch_size: on a resume, the global batch size that the run began with; accumulation is derived
            from it.

    Raises:
        ConfigError: the sizes contradict each other; the message shows the arithmetic.
    """
    world = spec.trainer.devices * spec.trainer.num_nodes if world_size is None else world_size
    tensor, pipeline = spec.parallel.tensor_model_parallel_size, spec.parallel.pipeline_model_parallel_size
    if world < 1 or world % (tensor * pipeline):
        raise ConfigError(
            f"{format_count(world, 'process', 'processes')} (trainer.devices={spec.trainer.devices} x "
            f"trainer.num_nodes={spec.trainer.num_nodes}) "
            f"cannot be split into groups of {tensor * pipeline} = parallel.tensor_model_parallel_size={tensor} x "
            f"parallel.pipeline_model_parallel_size={pipeline}. Change one of them so that the group size divides the "
            "number of processes."
        )
    data_parallel = world // (tensor * pipeline)
    micro, accumulate = spec.batch.micro_batch_size, spec.batch.accumulate_grad_batches
    wanted = _wanted_global(spec, frozen_global_batch_size)
    if wanted is not None and (frozen_global_batch_size is not None or accumulate == 1):
        accumulate = _accumulation(wanted, micro, data_parallel, frozen=frozen_global_batch_size is not None)
    computed = micro * accumulate * data_parallel
    if wanted is not None and wanted != computed:
        raise ConfigError(
            f"batch.global_batch_size={wanted} contradicts the other batch settings: "
            f"{_arithmetic(micro, accumulate, spec, world, computed)}. "
            "Leave batch.global_batch_size out, or set batch.accumulate_grad_batches=1 to derive the accumulation."
        )
    return BatchPlan(data_parallel, tensor, micro, accumulate, computed, pipeline)


def refuse_unsupported(spec: RunSpec) -> None:
    """Check that the run asks for no parallel layout and no recomputation that is not supported.

    Raises:
        ConfigError: it asks for sequence parallelism on one rank or in a pipeline, or for an unknown recomputation.
    """
    Recompute.of(spec.trainer)
    pipeline = spec.parallel.pipeline_model_parallel_size
    if pipeline > 1 and spec.parallel.sequence_parallel:
        raise ConfigError(
            f"parallel.sequence_parallel=true does not work with parallel.pipeline_model_parallel_size={pipeline}. "
            "Leave one of them out."
        )
    if pipeline > 1 and any(callback.name == "downstream" for callback in spec.callbacks):
        raise ConfigError(
            f"callbacks=[downstream] needs the whole model on each rank, and "
            f"parallel.pipeline_model_parallel_size={pipeline} splits it. Leave one of them out."
        )
    if spec.parallel.sequence_parallel and spec.parallel.tensor_model_parallel_size == 1:
        raise ConfigError(
            "parallel.sequence_parallel=true splits tokens over the tensor-parallel ranks, and "
            "parallel.tensor_model_parallel_size=1. Leave it out, or set parallel.tensor_model_parallel_size=2 or more."
        )


def _wanted_global(spec: RunSpec, frozen: int | None) -> int | None:
    given = spec.batch.global_batch_size
    if frozen is not None and given is not None and given != frozen:
        raise ConfigError(
            f"batch.global_batch_size={given}: the resumed run began with {frozen}, and the global batch size of a "
            "run cannot change. Leave batch.global_batch_size out, or start a new run with restore_from_path."
        )
    return given if frozen is None else frozen


def _accumulation(wanted: int, micro: int, data_parallel: int, *, frozen: bool) -> int:
    accumulate, rest = divmod(wanted, micro * data_parallel)
    if rest == 0 and accumulate > 0:
        return accumulate
    share, uneven = divmod(wanted, data_parallel)
    if uneven or share == 0:
        advice = f"Choose a number of data-parallel processes that divides {wanted}; {data_parallel} does not."
    else:
        largest = max(size for size in range(1, min(micro, share) + 1) if share % size == 0)
        number = format_count(share // largest, "micro batch", "micro batches")
        advice = f"batch.micro_batch_size={largest} works, with {number} per step."
    source = "this run began with a global batch of" if frozen else "batch.global_batch_size is"
    raise ConfigError(
        f"{source} {wanted}, which is not a multiple of micro {micro} x data parallel {data_parallel} = "
        f"{micro * data_parallel}. {advice}"
    )


def _arithmetic(micro: int, accumulate: int, spec: RunSpec, world: int, computed: int) -> str:
    tensor, pipeline = spec.parallel.tensor_model_parallel_size, spec.parallel.pipeline_model_parallel_size
    devices, nodes = spec.trainer.devices, spec.trainer.num_nodes
    processes = f"devices {devices} x nodes {nodes}" if devices * nodes == world else f"processes {world}"
    return f"micro {micro} x accumulate {accumulate} x {processes} / (tp {tensor} x pp {pipeline}) = {computed}"
