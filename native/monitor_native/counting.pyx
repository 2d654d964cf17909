# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Rows of many profiles → their cells, exact sums and extremes, in one pass over each column; and counts → bytes, and back.

What is counted is what numpy's searches, sums of integers and comparisons give, bit by bit: the same operations on the same doubles.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.math cimport fabs, floor
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    /* A sum of 128 bits, its low half first. */
    static inline void add_product(int64_t *sum, int64_t a, int64_t b) {
        __int128 product = (__int128)a * b;
        uint64_t low = (uint64_t)sum[0] + (uint64_t)product;
        sum[1] = (int64_t)((uint64_t)sum[1] + (uint64_t)(product >> 64) + (low < (uint64_t)product));
        sum[0] = (int64_t)low;
    }
    """
    void add_product(int64_t *, int64_t, int64_t) noexcept nogil
    void __builtin_prefetch(const void *) noexcept nogil

cdef double LIMIT = 70368744177664.0         # 2^46
cdef double TO_INTEGER = 6755399441055744.0  # 1.5 · 2^52: with it added, a double below 2^51 is rounded to an integer, half to even


cdef struct Number:
    const double *edges
    Py_ssize_t n_edges
    int64_t cell        # the first value's
    int64_t fractional  # where values that are not whole count as well; −1: nowhere
    double centre, scale


cdef class Grid:
    """Where a layout counts its numbers, and what their sums are taken of: round((x − centre) · scale).

    By number: edges, rising, of which no copy is made; cells: that of the first value, behind n_specials cells of what is no value;
    fractional: the cell in which values that are not whole count besides, −1: in none; centres, scales. n_cells: of the layout,
    categories included. Raises ValueError for a cell that is none.
    """

    cdef Number *numbers
    cdef Py_ssize_t n, n_specials, n_cells
    cdef list kept

    def __cinit__(self, edges, cells, fractional, centres, scales, Py_ssize_t n_specials, Py_ssize_t n_cells):
        cdef Py_ssize_t i, n_edges
        cdef const double[::1] of_number
        self.n, self.n_specials, self.n_cells, self.kept = len(edges), n_specials, n_cells, []
        self.numbers = <Number *>PyMem_Calloc(max(1, self.n), sizeof(Number))
        if self.numbers == NULL:
            raise MemoryError
        for i in range(self.n):
            of_number = edges[i]
            n_edges = of_number.shape[0]
            self.kept.append(of_number)
            self.numbers[i] = Number(&of_number[0], n_edges, cells[i], fractional[i], centres[i], scales[i])
            if not n_specials <= cells[i] < n_cells - n_edges or not -1 <= fractional[i] < n_cells:
                raise ValueError(f"number {i} has cells that are none of {n_cells}")

    def __dealloc__(self):
        PyMem_Free(self.numbers)


cdef struct Counts:
    void *first
    Py_ssize_t width     # bytes of a count
    Py_ssize_t n_cells
    const Number *numbers


cdef inline void count_one(Counts *counts, int64_t cell) noexcept nogil:
    if counts.width == 2:
        (<uint16_t *>counts.first)[cell] += 1
    elif counts.width == 4:
        (<uint32_t *>counts.first)[cell] += 1
    else:
        (<int64_t *>counts.first)[cell] += 1


cdef enum:
    AT_ONCE = 8   # values whose searches wait for the memory together
    AHEAD = 2     # rows whose counts are brought into the processor's cache meanwhile
    CHUNK = 256   # rows whose places stay in the processor's cache until they are counted


cdef inline void search(const double *edges, Py_ssize_t n_edges, const double *x, Py_ssize_t n, int32_t *below) noexcept nogil:
    """Find how many edges are below each of n values, AT_ONCE at the most, without a branch that depends on them."""
    cdef int32_t found[AT_ONCE]
    cdef Py_ssize_t k
    cdef int32_t half
    for k in range(n):
        found[k] = 0
    while n_edges > 1:
        half = <int32_t>(n_edges >> 1)
        for k in range(n):
            found[k] += half & -<int32_t>(edges[found[k] + half - 1] < x[k])
        n_edges -= half
    for k in range(n):
        below[k] = found[k] + (n_edges > 0 and edges[found[k]] < x[k])


cdef void search_all(Py_ssize_t j, Counts *counts, const int64_t *slots, const double *values, Py_ssize_t n, int32_t *below) noexcept nogil:
    """Find for number j of n rows, CHUNK at the most, how many edges of their slots are below."""
    cdef const Number *number
    cdef Py_ssize_t i = 0, k
    while i < n:
        number = &counts[slots[i]].numbers[j]
        k = 1
        while k < AT_ONCE and i + k < n and &counts[slots[i + k]].numbers[j] == number:
            k += 1
        if k == AT_ONCE:
            search(number.edges, number.n_edges, &values[i], AT_ONCE, &below[i])
            i += AT_ONCE
        else:
            search(number.edges, number.n_edges, &values[i], 1, &below[i])
            i += 1


cdef inline bint count_number(Counts *counts, const Number *number, double x, int32_t below, int64_t *sums, double *extremes) noexcept nogil:
    """Count a value; False where it is too far from the centre to be added."""
    cdef double scaled
    cdef int64_t q
    count_one(counts, number.cell + below)
    if number.fractional >= 0 and x != floor(x):
        count_one(counts, number.fractional)
    if x < extremes[0]:
        extremes[0] = x
    if x > extremes[1]:
        extremes[1] = x
    scaled = (x - number.centre) * number.scale
    if not fabs(scaled) < LIMIT:  # NaN, too, of what is infinite times 0
        return False
    q = <int64_t>((scaled + TO_INTEGER) - TO_INTEGER)
    add_product(&sums[0], q, 1)
    add_product(&sums[2], q, q)
    return True


def count(
    list grids,
    list counts,
    const int64_t[::1] slots,
    const double[:, ::1] numbers,
    specials,
    const int32_t[:, ::1] cells,
    int64_t[:, :, ::1] sums,
    double[:, :, ::1] extremes,
):
    """Add rows to the counts of their slots; return the (number, row) that are in no sum, since they are too far from the centre.

    grids, counts: by slot; all grids have as many numbers and as many cells of what is no value, and counts, shape (cells,), are unsigned
    of 2 or 4 bytes, or int64, and stay below their limit. slots: of each row, shape (n,). numbers: shape (numbers, n). specials: likewise; 0 for a value, else one of the cells of
    what is none, from 1 on; or None. cells: of the categories, shape (categories, n). sums: of each slot and number the low and the high
    half of its first and of its second sum, shape (slots or more, numbers, 4). extremes: least and greatest, shape (slots or more, numbers, 2).

    Raises ValueError for shapes that do not fit, and for a slot or a cell that is none; nothing is counted then.
    """
    cdef Py_ssize_t n = slots.shape[0], n_slots = len(grids), n_numbers = numbers.shape[0], n_specials = -1, i, j, first, upto
    cdef const uint8_t[:, ::1] of_special
    cdef Counts *taken
    cdef Py_buffer *buffers
    cdef int32_t *below
    cdef Counts *of_row
    cdef const Number *number
    cdef Grid grid
    cdef list far = []
    if len(counts) != n_slots or numbers.shape[1] != n or cells.shape[1] != n:
        raise ValueError(f"{n_slots} slots with {len(counts)} counts; {n} rows with {numbers.shape[1]} numbers and {cells.shape[1]} cells")
    if sums.shape[0] < n_slots or sums.shape[1] != n_numbers or sums.shape[2] != 4:
        raise ValueError(f"{n_slots} slots of {n_numbers} numbers have sums of shape {(sums.shape[0], sums.shape[1], sums.shape[2])}")
    if extremes.shape[0] < n_slots or extremes.shape[1] != n_numbers or extremes.shape[2] != 2:
        raise ValueError(f"{n_slots} slots of {n_numbers} numbers have extremes of shape {(extremes.shape[0], extremes.shape[1], extremes.shape[2])}")
    if specials is not None:
        of_special = specials
        if of_special.shape[0] != n_numbers or of_special.shape[1] != n:
            raise ValueError(f"{n_numbers} numbers of {n} rows have specials of shape {(of_special.shape[0], of_special.shape[1])}")
    if n == 0:
        return far
    taken = <Counts *>PyMem_Calloc(max(1, n_slots), sizeof(Counts))
    buffers = <Py_buffer *>PyMem_Calloc(max(1, n_slots), sizeof(Py_buffer))
    below = <int32_t *>PyMem_Malloc(max(1, n_numbers) * CHUNK * sizeof(int32_t))
    try:
        if taken == NULL or buffers == NULL or below == NULL:
            raise MemoryError
        for i in range(n):
            if not 0 <= slots[i] < n_slots:
                raise ValueError(f"row {i} is of slot {slots[i]} of {n_slots}")
            taken[slots[i]].width = 1  # has rows
        for i in range(n_slots):
            if taken[i].width == 0:
                continue
            grid = grids[i]
            PyObject_GetBuffer(counts[i], &buffers[i], PyBUF_SIMPLE | PyBUF_WRITABLE)
            taken[i] = Counts(buffers[i].buf, buffers[i].itemsize, grid.n_cells, grid.numbers)
            if n_specials < 0:
                n_specials = grid.n_specials
            if grid.n != n_numbers or grid.n_specials != n_specials:
                raise ValueError(f"slot {i} has {grid.n} numbers and {grid.n_specials} cells of what is none, not {n_numbers} and {n_specials}")
            if buffers[i].itemsize not in (2, 4, 8) or buffers[i].len != grid.n_cells * buffers[i].itemsize:
                raise ValueError(f"slot {i} has {buffers[i].len} bytes of counts, {buffers[i].itemsize} each, for {grid.n_cells} cells")
        for j in range(cells.shape[0]):
            for i in range(n):
                if not 0 <= cells[j, i] < taken[slots[i]].n_cells:
                    raise ValueError(f"category {j} of row {i} has cell {cells[j, i]} of {taken[slots[i]].n_cells}")
        if specials is not None:
            for j in range(n_numbers):
                for i in range(n):
                    if of_special[j, i] > n_specials:
                        raise ValueError(f"number {j} of row {i} is special {of_special[j, i]} of {n_specials}")
        for first in range(0, n, CHUNK):
            upto = min(n, first + CHUNK)
            for j in range(n_numbers):
                search_all(j, taken, &slots[first], &numbers[j, first], upto - first, &below[j * CHUNK])
            for i in range(first, upto):
                if i + AHEAD < upto:
                    of_row = &taken[slots[i + AHEAD]]
                    for j in range(n_numbers):
                        __builtin_prefetch(<char *>of_row.first + of_row.width * (of_row.numbers[j].cell + below[j * CHUNK + i + AHEAD - first]))
                        __builtin_prefetch(&sums[slots[i + AHEAD], j, 0])
                        __builtin_prefetch(&extremes[slots[i + AHEAD], j, 0])
                of_row = &taken[slots[i]]
                for j in range(cells.shape[0]):
                    count_one(of_row, cells[j, i])
                for j in range(n_numbers):
                    number = &of_row.numbers[j]
                    if specials is not None and of_special[j, i]:
                        count_one(of_row, number.cell - n_specials + of_special[j, i] - 1)
                    elif not count_number(of_row, number, numbers[j, i], below[j * CHUNK + i - first], &sums[slots[i], j, 0], &extremes[slots[i], j, 0]):
                        far.append((j, i))
    finally:
        for i in range(n_slots):
            if buffers != NULL and buffers[i].buf != NULL:
                PyBuffer_Release(&buffers[i])
        PyMem_Free(taken)
        PyMem_Free(buffers)
        PyMem_Free(below)
    return far


cdef enum:
    OFFSET, TIME, STAMP, CLOCK, N_MARKS   # of a row
cdef enum:                                # of a slot
    ROWS, INSPECTED, FIRST, LAST, BEFORE, FIRST_MS, LAST_MS, OUT_OF_ORDER, DISORDER, MIN_DELAY, MAX_DELAY, N_TIMED
cdef enum:
    MANTISSA_BITS = 50        # all but two: four cells to a doubling
    BITS_OF_ONE = 1023 << 2


cdef inline Py_ssize_t delay_cell(int64_t delay, Py_ssize_t n_each) noexcept nogil:
    """Find the cell of a delay among n_each for those below zero, one for zero, and n_each for those above."""
    cdef double size = fabs(<double>delay)
    cdef Py_ssize_t cell = <Py_ssize_t>((<int64_t *>&size)[0] >> MANTISSA_BITS) - (BITS_OF_ONE - 1)
    cell = min(max(cell, 0), n_each)
    return n_each + (cell if delay > 0 else -cell)


def count_times(
    const int64_t[::1] slots,
    const int64_t[:, ::1] marks,
    const int64_t[::1] before,
    const uint8_t[::1] inspected,
    int64_t latest_ms,
    int64_t[:, ::1] timed,
    list delays,
):
    """Add to what is known of the slots of rows when these came.

    slots: of each row, shape (n,); offsets rise. marks: offset, event time, timestamp of the record and running clock of each, ms, shape (4, n). before: the clock before
    it. inspected: 0 or 1. latest_ms: a timestamp from it on, or below 0, is none. timed: of each slot the rows and the inspected ones; offset of
    the first and of the last row, and the clock before the first; least and greatest time; rows behind the clock, and by how much at most; least and greatest
    delay; shape (slots or more, 11). delays: by slot rows by cell of their delay, shape (2 k + 1,) int64.

    Raises ValueError for shapes that do not fit, and for a slot that is none; nothing is counted then.
    """
    cdef Py_ssize_t n = slots.shape[0], n_slots = len(delays), i, n_cells = 0
    cdef int64_t **cells
    cdef Py_buffer *buffers
    cdef int64_t *of_slot
    cdef int64_t time, stamp, behind, delay
    if marks.shape[0] != N_MARKS or marks.shape[1] != n or before.shape[0] != n or inspected.shape[0] != n:
        raise ValueError(f"{n} rows with marks of shape {(marks.shape[0], marks.shape[1])}, {before.shape[0]} clocks and {inspected.shape[0]} inspected or not")
    if timed.shape[0] < n_slots or timed.shape[1] != N_TIMED:
        raise ValueError(f"{n_slots} slots have times of shape {(timed.shape[0], timed.shape[1])}")
    cells = <int64_t **>PyMem_Calloc(max(1, n_slots), sizeof(int64_t *))
    buffers = <Py_buffer *>PyMem_Calloc(max(1, n_slots), sizeof(Py_buffer))
    try:
        if cells == NULL or buffers == NULL:
            raise MemoryError
        for i in range(n):
            if not 0 <= slots[i] < n_slots:
                raise ValueError(f"row {i} is of slot {slots[i]} of {n_slots}")
            if cells[slots[i]] != NULL:
                continue
            PyObject_GetBuffer(delays[slots[i]], &buffers[slots[i]], PyBUF_SIMPLE | PyBUF_WRITABLE)
            cells[slots[i]] = <int64_t *>buffers[slots[i]].buf
            n_cells = n_cells or buffers[slots[i]].len // 8
            if buffers[slots[i]].itemsize != 8 or buffers[slots[i]].len != 8 * n_cells or n_cells % 2 == 0:
                raise ValueError(f"slot {slots[i]} has {buffers[slots[i]].len} bytes of delays, {buffers[slots[i]].itemsize} each")
        for i in range(n):
            of_slot = &timed[slots[i], 0]
            time, stamp = marks[TIME, i], marks[STAMP, i]
            if of_slot[ROWS] == 0:
                of_slot[FIRST], of_slot[BEFORE] = marks[OFFSET, i], before[i]
                of_slot[FIRST_MS] = of_slot[LAST_MS] = time
            of_slot[ROWS] += 1
            of_slot[INSPECTED] += inspected[i]
            of_slot[LAST] = marks[OFFSET, i]
            of_slot[FIRST_MS] = min(of_slot[FIRST_MS], time)
            of_slot[LAST_MS] = max(of_slot[LAST_MS], time)
            behind = marks[CLOCK, i] - time
            of_slot[OUT_OF_ORDER] += behind > 0
            of_slot[DISORDER] = max(of_slot[DISORDER], behind)
            if 0 <= stamp < latest_ms:
                delay = stamp - time
                of_slot[MIN_DELAY] = min(of_slot[MIN_DELAY], delay)
                of_slot[MAX_DELAY] = max(of_slot[MAX_DELAY], delay)
                cells[slots[i]][delay_cell(delay, n_cells // 2)] += 1
    finally:
        for i in range(n_slots):
            if buffers != NULL and buffers[i].buf != NULL:
                PyBuffer_Release(&buffers[i])
        PyMem_Free(cells)
        PyMem_Free(buffers)


ctypedef fused Count:
    uint16_t
    uint32_t
    uint64_t


cdef Py_ssize_t write_varints(const Count *counts, Py_ssize_t n, uint8_t *found) noexcept nogil:
    """Write LEB128; return how many bytes it is."""
    cdef Py_ssize_t at = 0, i
    cdef Count rest
    for i in range(n):
        rest = counts[i]
        while rest > 0x7F:
            found[at] = <uint8_t>(rest | 0x80)
            at += 1
            rest >>= 7
        found[at] = <uint8_t>rest
        at += 1
    return at


def varints(counts):
    """Return the LEB128 of unsigned integers of 2, 4 or 8 bytes, contiguous. Raises ValueError for others, BufferError for what has gaps."""
    cdef Py_buffer buffer
    cdef uint8_t *found = NULL
    cdef Py_ssize_t n, longest
    PyObject_GetBuffer(counts, &buffer, PyBUF_SIMPLE)
    try:
        if buffer.itemsize not in (2, 4, 8):
            raise ValueError(f"counts of {buffer.itemsize} bytes")
        n = buffer.len // buffer.itemsize
        longest = (8 * buffer.itemsize + 6) // 7
        found = <uint8_t *>PyMem_Malloc(max(1, n * longest))
        if found == NULL:
            raise MemoryError
        if buffer.itemsize == 2:
            n = write_varints(<const uint16_t *>buffer.buf, n, found)
        elif buffer.itemsize == 4:
            n = write_varints(<const uint32_t *>buffer.buf, n, found)
        else:
            n = write_varints(<const uint64_t *>buffer.buf, n, found)
        return PyBytes_FromStringAndSize(<char *>found, n)
    finally:
        PyMem_Free(found)
        PyBuffer_Release(&buffer)


def read_varints(const uint8_t[::1] data, uint64_t[::1] found):
    """Read as many integers as there are places; what is beyond 64 bits is lost. Return whether `data` holds exactly so many."""
    cdef Py_ssize_t n = found.shape[0], size = data.shape[0], i, at = 0
    cdef uint64_t read
    cdef int shift
    for i in range(n):
        read, shift = 0, 0
        while at < size and data[at] > 0x7F:
            if shift < 64:
                read |= <uint64_t>(data[at] & 0x7F) << shift
            shift += 7
            at += 1
        if at == size:
            return False
        if shift < 64:
            read |= <uint64_t>data[at] << shift
        found[i] = read
        at += 1
    return at == size
