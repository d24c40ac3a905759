"""How much memory a piece of code holds at its peak, counted from the tensors that it makes; any device, also meta."""

import weakref

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """A context that counts the bytes of tensors made inside it, while they live.

    Memory that a kernel takes for itself and gives back (workspaces) is not seen, nor is what an allocator rounds up.

    Attributes:
        now: bytes alive. Goes on counting down after the context has ended.
        peak: the most that was alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for storage in _storages((args, kwargs)):
            self._note(storage, 0)  # unknown so far: it was there before
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._note(storage, storage.nbytes())
        return result

    def _note(self, storage: torch.UntypedStorage, size: int) -> None:
        if storage._cdata in self._sizes:
            return
        self._sizes[storage._cdata] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class FlashOnMeta(TorchFunctionMode):
    """Attention on the meta device makes its result and nothing else, as every fused kernel does; PyTorch would make
    the whole matrix of scores there.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention and args[0].device.type == "meta":
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def _storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
