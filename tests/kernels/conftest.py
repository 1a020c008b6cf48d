"""What the kernel tests share: a call with its gradients, accounts of live memory and of matrix products."""

from importlib.util import find_spec

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TRITON = find_spec("triton") is not None  # it exists for Linux only
collect_ignore = [] if TRITON else ["test_triton.py"]


def pytest_collection_modifyitems(items):
    for item in items:
        if not TRITON and "triton" in getattr(item, "callspec", item).__dict__.get("params", {}).values():
            item.add_marker(pytest.mark.skip(reason="triton is not installed"))


def run(call, inputs, used=(0, 1, 2)):
    """[the three outputs, the gradients of a fixed weighted sum of the used ones] of call(*inputs)."""
    leaves = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
    out = call(*leaves)
    loss = 0.0
    for i in used:
        if out[i].requires_grad:
            coefficient = torch.linspace(-1.0, 2.0, out[i].numel(), dtype=out[i].dtype).reshape(out[i].shape) + 0.1 * i
            loss = loss + (coefficient * torch.where(out[i].isfinite(), out[i], 0.0)).sum()
    wanted = [x for x in leaves if x.requires_grad]
    return [*(x.detach() for x in out), *torch.autograd.grad(loss, wanted)]


class LiveMemory(TorchDispatchMode):
    """Bytes of the storages that operations made and something still holds; `peak` is the most there were."""

    def __init__(self):
        super().__init__()
        self.storages, self.inputs, self.peak = {}, set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.inputs |= {key for key in _storages((args, kwargs)) if key not in self.storages}
        result = func(*args, **(kwargs or {}))
        for key, storage in _storages(result).items():
            if key not in self.inputs:
                self.storages.setdefault(key, (StorageWeakRef(storage), storage.nbytes()))
        self.storages = {key: item for key, item in self.storages.items() if not item[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.storages.values()))
        return result


def _storages(tree):
    found = [x.untyped_storage() for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]
    return {storage._cdata: storage for storage in found}


class Products(TorchDispatchMode):
    """Floating-point operations of the matrix-matrix products, in-place ones included."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("mm", "addmm", "addmm_", "bmm", "baddbmm"):
            self.flops += 2 * args[-2].numel() * args[-1].shape[-1]
        return func(*args, **(kwargs or {}))


@pytest.fixture(name="run")
def _run():
    return run


@pytest.fixture
def products():
    return Products()


@pytest.fixture
def live_memory():
    return LiveMemory()
