#!/usr/bin/env bash
# Train on several machines without a scheduler. Start it on every one, with the same NODES, GPUS, FIRST and RUN:
#   NODES=2 GPUS=8 FIRST=node1:29500 RUN=pretrain examples/clusters/torchrun.sh model=esm2_650m
# FIRST is a machine that the others reach, with a free port; RUN names the run.
# After a stop or a failure start it again, on as many machines as there are: the run goes on.

set -euo pipefail
: "${BIONEMO_HOME:?Set BIONEMO_HOME to a folder that all machines share.}"
: "${NODES:?Set NODES to the number of machines.}" "${GPUS:?Set GPUS to the GPUs of each machine.}"
: "${FIRST:?Set FIRST to HOST:PORT of one machine.}" "${RUN:?Set RUN to the name of the run.}"

exec torchrun --nnodes="$NODES" --nproc-per-node="$GPUS" \
    --rdzv-backend=c10d --rdzv-endpoint="$FIRST" --rdzv-id="$RUN" \
    -m bionemo_core "name=$RUN" resume=auto "trainer.num_nodes=$NODES" "trainer.devices=$GPUS" "$@"
