"""Code in README and guides runs as it is printed."""

import re
from pathlib import Path
from types import ModuleType

import torch

from midway.data.views.render import example_clips
from midway.train.objective import Progress

ROOT = Path(__file__).parents[1]


def block(page: str, first_line: str) -> str:
    """Return the Python block of a page that begins with a line."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    (found,) = [code for code in blocks if code.startswith(first_line)]
    return found


def test_the_network_of_the_readme_prints_the_shapes_beside_it(capsys):
    code = block("README.md", "import midway\n")
    exec(code, {})
    promised = re.findall(r"^print.*  # ([(\[].*?[)\]])(?::|$)", code, flags=re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised
    assert len(promised) == 3


def test_the_method_of_the_guide_takes_a_step():
    module = ModuleType("next_token")
    exec(block("docs/METHODS.md", '"""Predict the next'), vars(module))
    method = module.METHOD.from_config(module.METHOD.Config.tiny())
    out = method.loss(example_clips(method.spec, 2))
    out.loss.backward()
    assert out.loss.isfinite()
    with torch.no_grad():
        method.after_step(Progress(step=0, steps=2, steps_per_epoch=1, samples=2))
