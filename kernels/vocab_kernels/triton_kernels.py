"""The Triton kernels: online statistics of rows of logits, their gradient, and the tile of a linear head.

The state of a row and its arithmetic are those of tiles.py, block by block: the highest z, `others` (the sum of e^(z-m)
without the top column), the moment, the total and the number of live columns. A row is always cut in the same places,
whatever else is in the batch, and merged in the same order: no atomics, and a token's figures do not depend on its
neighbours. NaN and +inf end up in the total, and a NaN total makes all outputs NaN.

Here is no launching and no memory: see triton_backend.py. Loads of logits are read in their own dtype and computed in
that of the state (float32, or float64 for float64). Temperatures, lengths and offsets are run-time values: a new
number of rows compiles nothing, a new width at most a variant (another power of two below 4,096, or divisible by 16).
"""

import triton
import triton.language as tl

# The values of a row's state, [6, parts, n]; close_kernel names those of its output.
TOP, OTHERS, MOMENT, TOTAL, COUNT, OWN = (tl.constexpr(i) for i in range(6))
TIE = tl.constexpr(1 << 16)  # packs two counts of at most 2^14 columns in one sum


@triton.jit
def _tanh(u):
    """Also relative precision near 0, which 2 sigmoid(2u) - 1 lacks: there Lambert's continued fraction, seven deep."""
    w = u * u
    near = u * (135135 + w * (17325 + w * (378 + w))) / (135135 + w * (62370 + w * (3150 + w * 28)))
    t = tl.exp(-2 * tl.abs(u))
    far = (1 - t) / (1 + t)
    return tl.where(w < 0.25, near, tl.where(u < 0, -far, far))


@triton.jit
def _log1p(x):
    """log(1 + x) for x >= 0 with relative precision: tl.log of a float32 near 1 has an absolute one only."""
    u = 1 + x
    if x.dtype == tl.float64:
        near = tl.log(u) * (x / tl.where(u == 1, 1.0, u - 1))  # the rounding error of u cancels
        return tl.where(u == 1, x, near)
    else:
        h = x / (2 + x)  # log(1 + x) = 2 artanh(h), h <= 1/3 for x <= 1
        w = h * h
        tail = 1 / 9 + w * (1 / 11 + w * (1 / 13 + w * (1 / 15)))
        near = 2 * h * (1 + w * (1 / 3 + w * (1 / 5 + w * (1 / 7 + w * tail))))
        return tl.where(x < 1, near, tl.log(u))


@triton.jit
def _temper(x, inverse, CAP: tl.constexpr):
    """z = cap(x) / T and cap'(x); infinities pass the cap."""
    if CAP is None:
        return x * inverse, 1.0
    else:
        t = _tanh(x * (1.0 / CAP))
        return tl.where(tl.abs(x) == float("inf"), x, t * CAP) * inverse, 1 - t * t


@triton.jit
def _fold(top, others, moment, total, count, z):
    """The state with a block z (-inf where there is no column); z - top, e^(z - top), and the drop of the maximum."""
    high = tl.maximum(top, tl.max(z, 0))
    at_top, live = z == high, z != float("-inf")
    exact = at_top & (tl.abs(z) != float("inf"))  # +inf is not hidden: inf - inf = NaN
    shifted = tl.where(exact, 0.0, z - high)  # 0 also if the compiler fused the subtraction into z
    e = tl.exp(shifted)
    found = tl.sum(live.to(tl.int32) + at_top.to(tl.int32) * TIE, 0)
    ties = (found // TIE).to(top.dtype)
    drop = top - high
    r = tl.exp(drop)
    moment = r * (moment + drop * (1 + others)) + tl.sum(tl.where(e > 0, e * shifted, 0.0), 0)
    others = r * others + tl.sum(tl.where(at_top, 0.0, e), 0) + tl.where(ties > 0, ties - 1 + r, 0.0)
    total = total + count * drop + tl.sum(tl.where(live, shifted, 0.0), 0)
    return high, others, moment, total, count + (found % TIE).to(top.dtype), shifted, e, drop


@triton.jit
def _store_state(state_ptr, step, top, others, moment, total, count):
    """Five values, `step` apart."""
    tl.store(state_ptr + TOP * step, top)
    tl.store(state_ptr + OTHERS * step, others)
    tl.store(state_ptr + MOMENT * step, moment)
    tl.store(state_ptr + TOTAL * step, total)
    tl.store(state_ptr + COUNT * step, count)


@triton.jit(do_not_specialize=["n"])
def row_kernel(
    x_ptr, x_row, x_column, index_ptr, target_ptr, heat_ptr, heat_step, state_ptr, n, width,
    CAP: tl.constexpr, INDEXED: tl.constexpr, FLOOR: tl.constexpr, SPAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program (i, part): the state of columns [part SPAN, (part + 1) SPAN) of row i (INDEXED: of row index[i]).

    x [*, >= width], target [n] in range, heat [n] or [1] (heat_step 0), state [6, parts, n].
    """
    i, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = tl.load(index_ptr + i) if INDEXED else i
    x_ptr += row * x_row
    dtype: tl.constexpr = state_ptr.dtype.element_ty
    inverse = 1 / tl.load(heat_ptr + i * heat_step)
    first = part * SPAN
    stop = tl.minimum(first + SPAN, width)
    top = tl.full((), FLOOR, dtype)
    others = tl.full((), 0.0, dtype)
    moment, total, count = others, others, others
    for start in range(first, stop, BLOCK):
        columns = (start + tl.arange(0, BLOCK)).to(tl.int64)
        x = tl.load(x_ptr + columns * x_column, mask=columns < stop, other=float("-inf")).to(dtype)
        z, _ = _temper(x, inverse, CAP)
        top, others, moment, total, count, _, _, _ = _fold(top, others, moment, total, count, z)
    step = tl.num_programs(1).to(tl.int64) * n
    _store_state(state_ptr + part * n + i, step, top, others, moment, total, count)
    y = tl.load(target_ptr + i)
    if (y >= first) & (y < stop):
        own, _ = _temper(tl.load(x_ptr + y * x_column).to(dtype), inverse, CAP)
        tl.store(state_ptr + OWN * step + i, own)


@triton.jit(do_not_specialize=["n", "parts"])
def close_kernel(state_ptr, out_ptr, n, parts, FLOOR: tl.constexpr, BLOCK: tl.constexpr):
    """out [9, n] from state [6, parts, n]: the three statistics, then what the backward pass needs (tiles.Rows)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < n
    dtype: tl.constexpr = state_ptr.dtype.element_ty
    top = tl.full((BLOCK,), FLOOR, dtype)
    others = tl.full((BLOCK,), 0.0, dtype)
    moment, total, count = others, others, others
    step = parts.to(tl.int64) * n
    for part in range(0, parts):
        at = state_ptr + part * n + i
        top2 = tl.load(at + TOP * step, mask=here, other=0.0)
        others2 = tl.load(at + OTHERS * step, mask=here, other=0.0)
        moment2 = tl.load(at + MOMENT * step, mask=here, other=0.0)
        total2 = tl.load(at + TOTAL * step, mask=here, other=0.0)
        count2 = tl.load(at + COUNT * step, mask=here, other=1.0)
        high = tl.maximum(top, top2)
        drop, drop2 = top - high, top2 - high
        r, r2 = tl.exp(drop), tl.exp(drop2)
        moment = r * (moment + drop * (1 + others)) + r2 * (moment2 + drop2 * (1 + others2))
        lesser = tl.where((count > 0) & (count2 > 0), tl.minimum(r, r2), 0.0)  # the top that is no longer the top
        others = r * others + r2 * others2 + lesser
        total = total + count * drop + total2 + count2 * drop2
        top, count = high, count + count2
    own = tl.load(state_ptr + OWN * step + i, mask=here, other=0.0) - top
    others = tl.where((count == 0) | (total != total), float("nan"), others)
    s, log_s = 1 + others, _log1p(others)
    mean = moment / s
    out_ptr += i
    tl.store(out_ptr, own - log_s, mask=here)
    tl.store(out_ptr + n, log_s - mean, mask=here)
    tl.store(out_ptr + 2 * n, log_s - total / count - tl.log(count), mask=here)
    tl.store(out_ptr + 3 * n, top, mask=here)
    tl.store(out_ptr + 4 * n, s, mask=here)
    tl.store(out_ptr + 5 * n, mean, mask=here)
    tl.store(out_ptr + 6 * n, count, mask=here)
    tl.store(out_ptr + 7 * n, own, mask=here)
    q = tl.where(own == 0, others, s - tl.exp(own)) / s  # 1 - p_y without cancellation: the top has p_y = 1 / s
    tl.store(out_ptr + 8 * n, q, mask=here)


@triton.jit(do_not_specialize=["n", "first"])
def slope_kernel(
    x_ptr, x_row, x_column, index_ptr, target_ptr, bias_ptr, heat_ptr, heat_step,
    saved_ptr, logp_ptr, entropy_ptr, certainty_ptr, out_ptr, out_row, out_column, n, first, width,
    CAP: tl.constexpr, INDEXED: tl.constexpr, BIASED: tl.constexpr, LOGP: tl.constexpr, ENTROPY: tl.constexpr,
    CERTAINTY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program (i, block): dloss/dx of a block of row i.

    x holds columns first, first + 1, ... of the row; saved [6, n] is out[3:] of close_kernel; the three upstream
    gradients [n] are read where LOGP, ENTROPY, CERTAINTY say so. out may be x.
    """
    i = tl.program_id(0).to(tl.int64)
    row = tl.load(index_ptr + i) if INDEXED else i
    dtype: tl.constexpr = saved_ptr.dtype.element_ty
    columns = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    x = tl.load(x_ptr + row * x_row + columns * x_column, mask=columns < width, other=float("-inf")).to(dtype)
    if BIASED:
        x += tl.load(bias_ptr + columns, mask=columns < width, other=0.0).to(dtype)
    inverse = 1 / tl.load(heat_ptr + i * heat_step)
    z, gain = _temper(x, inverse, CAP)
    saved_ptr += i
    top, s, mean = tl.load(saved_ptr), tl.load(saved_ptr + n), tl.load(saved_ptr + 2 * n)
    count, own, q = tl.load(saved_ptr + 3 * n), tl.load(saved_ptr + 4 * n), tl.load(saved_ptr + 5 * n)
    p_own = tl.exp(own) / s
    shifted = z - top
    p = tl.exp(shifted) * (1 / s)
    on_rest = tl.full((BLOCK,), 0.0, dtype)
    on_target = tl.full((), 0.0, dtype)
    if LOGP:
        g = tl.load(logp_ptr + i).to(dtype)
        on_rest -= g * p
        on_target += g * q
    if ENTROPY:
        g = tl.load(entropy_ptr + i).to(dtype)
        on_rest -= g * (p * (shifted - mean))  # times p first: of a finite mask z - m is near -1e38
        on_target -= g * p_own * (own - mean)
    if CERTAINTY:
        g = tl.load(certainty_ptr + i).to(dtype)
        on_rest += g * p
        on_target += g * p_own
    y = tl.load(target_ptr + i) - first
    slope = tl.where(columns == y, on_target, on_rest)
    if CERTAINTY:
        slope -= tl.load(certainty_ptr + i).to(dtype) / count
    slope = tl.where(z == float("-inf"), 0.0, slope * gain * inverse)
    to = out_ptr + row * out_row + columns * out_column
    tl.store(to, slope.to(out_ptr.dtype.element_ty), mask=columns < width)


@triton.jit
def _rescale(kept_ptr, drop, size, KEEP: tl.constexpr, BLOCK: tl.constexpr):
    """A row's residuals [KEEP, size] to a maximum that is higher by -drop."""
    r = tl.exp(drop)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        first = tl.load(kept_ptr + at, mask=at < size, other=0.0)
        tl.store(kept_ptr + at, first * r, mask=at < size)
        if KEEP == 2:
            second = tl.load(kept_ptr + size + at, mask=at < size, other=0.0)
            tl.store(kept_ptr + size + at, r * (second + drop * first), mask=at < size)


@triton.jit(do_not_specialize=["n", "first"])
def tile_kernel(
    x_ptr, x_row, target_ptr, bias_ptr, heat_ptr, heat_step, state_ptr, panel_ptr, panel_row, panel_step,
    kept_ptr, size, n, first, width,
    CAP: tl.constexpr, BIASED: tl.constexpr, KEEP: tl.constexpr, SCALE: tl.constexpr, FLOOR: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """Program i: fold columns [first, first + width) of row i, which x holds, into state [6, n].

    KEEP 1: writes e^(z - top) cap'(x) SCALE to the panel, 0 for the target; KEEP 2: the same times (z - top) too,
    panel_step further on; and brings the row's residuals [KEEP, size] to the new top. The panels may lie over x:
    a program holds its whole row before it writes.
    """
    i = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = state_ptr.dtype.element_ty
    columns = tl.arange(0, BLOCK)
    x_ptr += i * x_row
    x = tl.load(x_ptr + columns, mask=columns < width, other=float("-inf"))
    y = tl.load(target_ptr + i) - first
    here = (y >= 0) & (y < width)
    own = tl.load(x_ptr + y, mask=here, other=0.0)
    if BIASED:
        x += tl.load(bias_ptr + columns, mask=columns < width, other=0.0).to(dtype)
        own += tl.load(bias_ptr + y, mask=here, other=0.0).to(dtype)
    inverse = 1 / tl.load(heat_ptr + i * heat_step)
    z, gain = _temper(x, inverse, CAP)
    own, _ = _temper(own, inverse, CAP)
    state_ptr += i
    n = n.to(tl.int64)
    old = first > 0
    top = tl.load(state_ptr + TOP * n, mask=old, other=FLOOR)
    others = tl.load(state_ptr + OTHERS * n, mask=old, other=0.0)
    moment = tl.load(state_ptr + MOMENT * n, mask=old, other=0.0)
    total = tl.load(state_ptr + TOTAL * n, mask=old, other=0.0)
    count = tl.load(state_ptr + COUNT * n, mask=old, other=0.0)
    top, others, moment, total, count, shifted, e, drop = _fold(top, others, moment, total, count, z)
    _store_state(state_ptr, n, top, others, moment, total, count)
    tl.store(state_ptr + OWN * n, own, mask=here)
    if KEEP > 0:
        f = tl.where(columns == y, 0.0, e * gain * SCALE)
        tl.debug_barrier()
        panel_ptr += i * panel_row
        tl.store(panel_ptr + columns, f.to(panel_ptr.dtype.element_ty), mask=columns < width)
        if KEEP == 2:
            moved = tl.where(e > 0, f * shifted, 0.0)
            tl.store(panel_ptr + panel_step + columns, moved.to(panel_ptr.dtype.element_ty), mask=columns < width)
        if old & (drop < 0):
            _rescale(kept_ptr + i * (KEEP * size), drop, size, KEEP, BLOCK_SIZE)
