# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Rows of many profiles → their cells, exact sums and extremes, in one pass over each column; and counts → bytes, and back.

What is counted is what numpy's searches, sums of integers and comparisons give, bit by bit: the same operations on the same doubles.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
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
    int64_t *delays      # rows by cell
    Py_ssize_t n_delays  # cells on each side of that of no delay


cdef class Slots:
    """Where rows are counted, by slot; what is written to is held until its slot is given something else."""

    cdef Counts *counts
    cdef Py_buffer *buffers   # two of each slot: counts, delays
    cdef Py_ssize_t n, room, n_numbers, n_specials
    cdef list grids

    def __cinit__(self):
        self.n, self.room, self.n_numbers, self.n_specials, self.grids = 0, 0, -1, 0, []

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(2 * self.n):
            PyBuffer_Release(&self.buffers[i])
        PyMem_Free(self.counts)
        PyMem_Free(self.buffers)

    def __len__(self):
        return self.n

    def put(self, Py_ssize_t slot, Grid grid, counts, delays):
        """Say where rows of a slot are counted, one that is there or the next one.

        grid: with as many numbers and as many cells of what is no value as those of other slots. counts: shape (cells,), unsigned of 2 or 4 bytes,
        or int64; it stays below its limit. delays: rows by cell of their delay, shape (2 k + 1,) int64.

        Raises ValueError for what does not fit, BufferError for what cannot be written to; the slot is then as it was.
        """
        cdef Py_buffer buffers[2]
        if not 0 <= slot <= self.n:
            raise ValueError(f"slot {slot} of {self.n}")
        if self.n_numbers >= 0 and (grid.n != self.n_numbers or grid.n_specials != self.n_specials):
            raise ValueError(f"slot {slot} has {grid.n} numbers and {grid.n_specials} cells of what is none, not {self.n_numbers} and {self.n_specials}")
        if slot == self.room:
            self.grow()
        PyObject_GetBuffer(counts, &buffers[0], PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if buffers[0].itemsize not in (2, 4, 8) or buffers[0].len != grid.n_cells * buffers[0].itemsize:
                raise ValueError(f"slot {slot} has {buffers[0].len} bytes of counts, {buffers[0].itemsize} each, for {grid.n_cells} cells")
            PyObject_GetBuffer(delays, &buffers[1], PyBUF_SIMPLE | PyBUF_WRITABLE)
        except BaseException:
            PyBuffer_Release(&buffers[0])
            raise
        if buffers[1].itemsize != 8 or buffers[1].len // 8 % 2 == 0:
            found = f"slot {slot} has {buffers[1].len} bytes of delays, {buffers[1].itemsize} each"
            PyBuffer_Release(&buffers[0])
            PyBuffer_Release(&buffers[1])
            raise ValueError(found)
        if slot == self.n:
            self.n += 1
            self.grids.append(grid)
        else:
            PyBuffer_Release(&self.buffers[2 * slot])
            PyBuffer_Release(&self.buffers[2 * slot + 1])
            self.grids[slot] = grid
        self.n_numbers, self.n_specials = grid.n, grid.n_specials
        self.buffers[2 * slot], self.buffers[2 * slot + 1] = buffers[0], buffers[1]
        self.counts[slot] = Counts(buffers[0].buf, buffers[0].itemsize, grid.n_cells, grid.numbers, <int64_t *>buffers[1].buf, buffers[1].len // 16)

    cdef int grow(self) except -1:
        cdef Py_ssize_t room = max(16, 2 * self.room)
        cdef void *counts = PyMem_Realloc(self.counts, room * sizeof(Counts))
        if counts == NULL:
            raise MemoryError
        self.counts = <Counts *>counts
        cdef void *buffers = PyMem_Realloc(self.buffers, 2 * room * sizeof(Py_buffer))
        if buffers == NULL:
            raise MemoryError
        self.buffers = <Py_buffer *>buffers
        self.room = room
        return 0

    cdef int check(self, const int64_t[::1] slots) except -1:
        """Raise ValueError where a row's slot is none."""
        cdef Py_ssize_t i
        for i in range(slots.shape[0]):
            if not 0 <= slots[i] < self.n:
                raise ValueError(f"row {i} is of slot {slots[i]} of {self.n}")
        return 0


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
    Slots slots,
    const int64_t[::1] slot_of,
    const double[:, ::1] numbers,
    specials,
    const int32_t[:, ::1] cells,
    int64_t[:, :, ::1] sums,
    double[:, :, ::1] extremes,
):
    """Add rows to the counts of their slots; return the (number, row) that are in no sum, since they are too far from the centre.

    slot_of: of each row, shape (n,). numbers: shape (numbers, n). specials: likewise; 0 for a value, else one of the cells of
    what is none, from 1 on; or None. cells: of the categories, shape (categories, n). sums: of each slot and number the low and the high
    half of its first and of its second sum, shape (slots or more, numbers, 4). extremes: least and greatest, shape (slots or more, numbers, 2).

    Raises ValueError for shapes that do not fit, and for a slot or a cell that is none; nothing is counted then.
    """
    cdef Py_ssize_t n = slot_of.shape[0], n_numbers = slots.n_numbers, n_specials = slots.n_specials, i, j, first, upto
    cdef const uint8_t[:, ::1] of_special
    cdef Counts *taken = slots.counts
    cdef int32_t *below
    cdef Counts *of_row
    cdef const Number *number
    cdef list far = []
    if n == 0:
        return far
    slots.check(slot_of)
    if numbers.shape[0] != n_numbers or numbers.shape[1] != n or cells.shape[1] != n:
        raise ValueError(f"{n} rows of {n_numbers} numbers have numbers of shape {(numbers.shape[0], numbers.shape[1])} and {cells.shape[1]} cells")
    if sums.shape[0] < slots.n or sums.shape[1] != n_numbers or sums.shape[2] != 4:
        raise ValueError(f"{slots.n} slots of {n_numbers} numbers have sums of shape {(sums.shape[0], sums.shape[1], sums.shape[2])}")
    if extremes.shape[0] < slots.n or extremes.shape[1] != n_numbers or extremes.shape[2] != 2:
        raise ValueError(f"{slots.n} slots of {n_numbers} numbers have extremes of shape {(extremes.shape[0], extremes.shape[1], extremes.shape[2])}")
    for j in range(cells.shape[0]):
        for i in range(n):
            if not 0 <= cells[j, i] < taken[slot_of[i]].n_cells:
                raise ValueError(f"category {j} of row {i} has cell {cells[j, i]} of {taken[slot_of[i]].n_cells}")
    if specials is not None:
        of_special = specials
        if of_special.shape[0] != n_numbers or of_special.shape[1] != n:
            raise ValueError(f"{n_numbers} numbers of {n} rows have specials of shape {(of_special.shape[0], of_special.shape[1])}")
        for j in range(n_numbers):
            for i in range(n):
                if of_special[j, i] > n_specials:
                    raise ValueError(f"number {j} of row {i} is special {of_special[j, i]} of {n_specials}")
    below = <int32_t *>PyMem_Malloc(max(1, n_numbers) * CHUNK * sizeof(int32_t))
    if below == NULL:
        raise MemoryError
    try:
        for first in range(0, n, CHUNK):
            upto = min(n, first + CHUNK)
            for j in range(n_numbers):
                search_all(j, taken, &slot_of[first], &numbers[j, first], upto - first, &below[j * CHUNK])
            for i in range(first, upto):
                if i + AHEAD < upto:
                    of_row = &taken[slot_of[i + AHEAD]]
                    for j in range(n_numbers):
                        __builtin_prefetch(<char *>of_row.first + of_row.width * (of_row.numbers[j].cell + below[j * CHUNK + i + AHEAD - first]))
                        __builtin_prefetch(&sums[slot_of[i + AHEAD], j, 0])
                        __builtin_prefetch(&extremes[slot_of[i + AHEAD], j, 0])
                of_row = &taken[slot_of[i]]
                for j in range(cells.shape[0]):
                    count_one(of_row, cells[j, i])
                for j in range(n_numbers):
                    number = &of_row.numbers[j]
                    if specials is not None and of_special[j, i]:
                        count_one(of_row, number.cell - n_specials + of_special[j, i] - 1)
                    elif not count_number(of_row, number, numbers[j, i], below[j * CHUNK + i - first], &sums[slot_of[i], j, 0], &extremes[slot_of[i], j, 0]):
                        far.append((j, i))
    finally:
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
    Slots slots,
    const int64_t[::1] slot_of,
    const int64_t[:, ::1] marks,
    const int64_t[::1] before,
    const uint8_t[::1] inspected,
    int64_t latest_ms,
    int64_t[:, ::1] timed,
):
    """Add to what is known of the slots of rows when these came, and to the counts of their delays.

    slot_of: of each row, shape (n,); offsets rise. marks: offset, event time, timestamp of the record and running clock of each, ms, shape (4, n).
    before: the clock before it. inspected: 0 or 1. latest_ms: a timestamp from it on, or below 0, is none. timed: of each slot the rows and
    the inspected ones; offset of the first and of the last row, and the clock before the first; least and greatest time; rows behind the
    clock, and by how much at most; least and greatest delay; shape (slots or more, 11).

    Raises ValueError for shapes that do not fit, and for a slot that is none; nothing is counted then.
    """
    cdef Py_ssize_t n = slot_of.shape[0], i
    cdef Counts *of_row
    cdef int64_t *found
    cdef int64_t time, stamp, behind, delay
    if marks.shape[0] != N_MARKS or marks.shape[1] != n or before.shape[0] != n or inspected.shape[0] != n:
        raise ValueError(f"{n} rows with marks of shape {(marks.shape[0], marks.shape[1])}, {before.shape[0]} clocks and {inspected.shape[0]} inspected or not")
    if timed.shape[0] < slots.n or timed.shape[1] != N_TIMED:
        raise ValueError(f"{slots.n} slots have times of shape {(timed.shape[0], timed.shape[1])}")
    slots.check(slot_of)
    for i in range(n):
        of_row, found = &slots.counts[slot_of[i]], &timed[slot_of[i], 0]
        time, stamp = marks[TIME, i], marks[STAMP, i]
        if found[ROWS] == 0:
            found[FIRST], found[BEFORE] = marks[OFFSET, i], before[i]
            found[FIRST_MS] = found[LAST_MS] = time
        found[ROWS] += 1
        found[INSPECTED] += inspected[i]
        found[LAST] = marks[OFFSET, i]
        found[FIRST_MS] = min(found[FIRST_MS], time)
        found[LAST_MS] = max(found[LAST_MS], time)
        behind = marks[CLOCK, i] - time
        found[OUT_OF_ORDER] += behind > 0
        found[DISORDER] = max(found[DISORDER], behind)
        if 0 <= stamp < latest_ms:
            delay = stamp - time
            found[MIN_DELAY] = min(found[MIN_DELAY], delay)
            found[MAX_DELAY] = max(found[MAX_DELAY], delay)
            of_row.delays[delay_cell(delay, of_row.n_delays)] += 1


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
