"""Writes docs/plans.md: what each configuration in runs/ needs, by grpo.py's own --plan.

python runs/plans.py
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# What the configurations need

Made by `python runs/plans.py`: memory on each GPU, and the least time a step can take at the card's ceilings (plan.py
says what is counted and what is not). None of these has been run yet.
"""


def main() -> None:
    text = HEADER
    for path in sorted((ROOT / "runs").glob("grpo-*.yaml")):
        gpus = "1" if "1gpu" in path.stem else "8"
        shape = path.stem.removeprefix("grpo-").removesuffix("-1gpu")
        command = f"grpo.py runs/{path.name} --model runs/shapes/{shape} --plan {gpus}"
        done = subprocess.run([sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=True)
        text += f"\n    python {command}\n\n```text\n{done.stdout}```\n"
    (ROOT / "docs/plans.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
