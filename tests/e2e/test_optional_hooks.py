"""The plugin of `docs/plugin_hooks.md`: its components change what comes out of a run."""

from documents import PROJECT, pretend_installed, python_path, write_named_blocks
from runs import read_metrics

SHORT = ("trainer.max_steps=4", "trainer.log_every_n_steps=1", "trainer.val_check_interval=4", "batch.num_workers=0")


def test_the_hooks_of_the_documentation_change_a_run(forked_command, tmp_path):
    site = tmp_path / "site"
    write_named_blocks(PROJECT / "docs/plugin_hooks.md", site)
    pretend_installed(site)
    (tmp_path / "ten.pir").write_text("".join(f">P1;P{n}\ntitle\n{'ACDEFGHIKL' * (n % 4 + 2)}*\n" for n in range(40)))
    data = ("data=records", "data.path=ten.pir", "data.val_size=8")
    chosen = ("scheduler=stairs", "scheduler.stairs=2", "optim.lr=1e-3", "logger=[csv,lines]", "logger.lines.digits=3")
    done = forked_command(
        "model=esm1nv_tiny", *chosen, *data, *SHORT, "batch.seq_length=64", PYTHONPATH=python_path(site)
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "home/runs/esm1nv_tiny").iterdir()
    assert [float(row["lr"]) for row in read_metrics(folder).values()] == [1e-3, 1e-3, 5e-4, 5e-4]
    lines = (folder / "lines.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"1", "2", "3", "4"}
    assert any(line.startswith("4 ") and " lr 0.0005 " in line for line in lines), lines
