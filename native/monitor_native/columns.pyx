# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""JSON events of a known shape → columns, in one pass over their bytes.

A parser is made for the fields that are wanted, in the order that producers write them; another order is read as well, more slowly. What it
cannot read for certain as every JSON parser would is *odd*, and left to one: text that is not JSON, a value of another type than is
wanted, a field that comes twice, escapes in names. So it never has to say what is wrong with an event, only that it is as expected.

Bytes are read up to the NUL that Python keeps behind them: a character is stepped over only once it is known not to be that one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.math cimport INFINITY, NAN, isfinite
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """
    static inline uint64_t high_product(uint64_t a, uint64_t b, uint64_t *low) {
        unsigned __int128 product = (unsigned __int128)a * b;
        *low = (uint64_t)product;
        return (uint64_t)(product >> 64);
    }
    static inline int leading_zeros(uint64_t x) { return __builtin_clzll(x); }
    static inline void fetch_ahead(const char *text, Py_ssize_t size) {
        for (Py_ssize_t at = 0; at < size && at < 2048; at += 64) __builtin_prefetch(text + at);
    }
    static double read_double(const char *text, char **end) {
        double found = PyOS_string_to_double(text, end, NULL);
        if (PyErr_Occurred()) PyErr_Clear();
        return found;
    }
    """
    uint64_t high_product(uint64_t, uint64_t, uint64_t *) noexcept nogil
    int leading_zeros(uint64_t) noexcept nogil
    void fetch_ahead(const char *, Py_ssize_t) noexcept nogil
    double read_double(const char *, char **) noexcept

cdef enum:
    IS_SKIPPED
    IS_NUMBER
    IS_TOKEN
    IS_INTEGER
    IS_TEXT
    IS_RAW
    IS_FEATURES

cdef enum:
    IS_ODD = 1
    HAS_MORE = 2
    IS_NOT_ASCII = 4

SKIPPED, NUMBER, TOKEN, INTEGER, TEXT, RAW, FEATURES = range(7)
"""What is made of a field: nothing; a double, NaN for null, +inf where it is absent, −inf for a text or a boolean; the code of its JSON text among those seen, a scalar, 0
where it is absent; a whole number, required; the bytes of a text without escapes, None for null or where it is absent; the bytes of its
JSON text, None where it is absent; the object whose fields are the features, required."""

ODD, MORE, NOT_ASCII = IS_ODD, HAS_MORE, IS_NOT_ASCII
"""Bits of what became of an event. More: it has features that are not wanted. Not ASCII: texts of it that were not looked into may be no UTF-8."""

cdef enum:
    AHEAD = 4                # events, that are brought into the processor's cache meanwhile
    MAX_DEPTH = 8            # of a value that is skipped or left raw
    MAX_TOKENS = 4096        # of a column
    MAX_TOKEN_BYTES = 256
    FIRST_SLOTS = 64
    MAX_PROBES = 16          # so that nobody's choice of texts makes a lookup long
    MAX_DIGITS = 19          # of a 64-bit integer
    MAX_EXACT_POWER = 22     # of ten, in a double
    MAX_POWER = 64           # of ten, in the table

# ------------------------------------------------------------------------------------------------------------------ bytes

cdef inline bint is_equal(const char *one, const char *other, Py_ssize_t size) noexcept nogil:
    """Whether so many bytes are equal: as memcmp, but names and texts are too short to call it."""
    cdef uint64_t a, b
    cdef uint32_t c, d
    cdef Py_ssize_t at = 0
    if size >= 8:
        while at + 8 < size:
            memcpy(&a, one + at, 8)
            memcpy(&b, other + at, 8)
            if a != b:
                return False
            at += 8
        memcpy(&a, one + size - 8, 8)
        memcpy(&b, other + size - 8, 8)
        return a == b
    if size >= 4:
        memcpy(&c, one, 4)
        memcpy(&d, other, 4)
        if c != d:
            return False
        memcpy(&c, one + size - 4, 4)
        memcpy(&d, other + size - 4, 4)
        return c == d
    while at < size:
        if one[at] != other[at]:
            return False
        at += 1
    return True


# ---------------------------------------------------------------------------------------------------------------- numbers

cdef uint64_t[2 * MAX_POWER + 1] POWER_HIGH
cdef uint64_t[2 * MAX_POWER + 1] POWER_LOW
cdef double[MAX_EXACT_POWER + 1] EXACT_POWER


def _fill_powers():
    """The first 128 bits of each power of ten, rounded down."""
    for power in range(-MAX_POWER, MAX_POWER + 1):
        top, bottom = 10 ** max(power, 0), 10 ** max(-power, 0)
        bits = 128 + bottom.bit_length() - top.bit_length()
        mantissa = (top << bits) // bottom if bits >= 0 else top >> -bits
        mantissa >>= mantissa.bit_length() - 128
        POWER_HIGH[power + MAX_POWER] = mantissa >> 64
        POWER_LOW[power + MAX_POWER] = mantissa & ((1 << 64) - 1)
    for power in range(MAX_EXACT_POWER + 1):
        EXACT_POWER[power] = 10.0 ** power


_fill_powers()


cdef inline bint nearest_double(uint64_t mantissa, int power, double *found) noexcept nogil:
    """Find mantissa × 10^power, the mantissa not 0, rounded to the nearest double; False where 128 bits of the power do not decide it.

    The algorithm of Eisel and Lemire (D. Lemire, Number parsing at a gigabyte per second, 2021), as in Go's strconv.
    """
    cdef uint64_t high, low, more_high, more_low, top_bit, bits, exponent
    cdef int zeros
    if power < -MAX_POWER or power > MAX_POWER:
        return False
    zeros = leading_zeros(mantissa)
    mantissa <<= zeros
    exponent = <uint64_t>(((217706 * power) >> 16) + 64 + 1023 - zeros)
    high = high_product(mantissa, POWER_HIGH[power + MAX_POWER], &low)
    if (high & 0x1FF) == 0x1FF and low + mantissa < mantissa:
        more_high = high_product(mantissa, POWER_LOW[power + MAX_POWER], &more_low)
        low += more_high
        if low < more_high:
            high += 1
        if (high & 0x1FF) == 0x1FF and low + 1 == 0 and more_low + mantissa < mantissa:
            return False
    top_bit = high >> 63
    bits = high >> (top_bit + 9)
    exponent -= 1 ^ top_bit
    if low == 0 and (high & 0x1FF) == 0 and (bits & 3) == 1:
        return False
    bits = (bits + (bits & 1)) >> 1
    if bits >> 53:
        bits >>= 1
        exponent += 1
    if exponent - 1 >= 0x7FE:  # subnormal, or beyond the largest
        return False
    bits = (exponent << 52) | (bits & ((<uint64_t>1 << 52) - 1))
    memcpy(found, &bits, sizeof(double))
    return True


cdef inline int digit(const char *p) noexcept nogil:
    """Return a digit; anything else is below 0 or above 9."""
    return <int><unsigned char>p[0] - 48


cdef inline const char *number(const char *p, double *found) noexcept:
    """Read a JSON number. Return what is behind it; NULL where there is none that a double can hold."""
    cdef const char *start = p
    cdef char *end
    cdef const char *first
    cdef uint64_t mantissa = 0
    cdef Py_ssize_t n
    cdef int power = 0, exponent = 0
    cdef bint is_negative = p[0] == b'-', is_small = False, is_whole = True
    p += is_negative
    first = p
    if p[0] == b'0':
        p += 1
    elif 1 <= digit(p) <= 9:
        while 0 <= digit(p) <= 9:
            mantissa = mantissa * 10 + <uint64_t>digit(p)
            p += 1
    else:
        return NULL
    n = p - first
    if p[0] == b'.':
        is_whole = False
        p += 1
        if not 0 <= digit(p) <= 9:
            return NULL
        while 0 <= digit(p) <= 9:
            mantissa = mantissa * 10 + <uint64_t>digit(p)
            p += 1
        power = <int>(n + 1 - (p - first))
        n = p - first - 1
        if n > MAX_DIGITS:  # zeros that lead are none
            while first[0] == b'0' or first[0] == b'.':
                n -= first[0] == b'0'
                first += 1
    if p[0] == b'e' or p[0] == b'E':
        is_whole = False
        p += 1
        is_small = p[0] == b'-'
        p += is_small or p[0] == b'+'
        if not 0 <= digit(p) <= 9:
            return NULL
        while 0 <= digit(p) <= 9:
            if exponent < 10_000:
                exponent = exponent * 10 + digit(p)
            p += 1
        power += -exponent if is_small else exponent
    if n <= MAX_DIGITS:
        if mantissa >> 53 == 0 and -MAX_EXACT_POWER <= power <= MAX_EXACT_POWER:
            found[0] = <double>mantissa
            if power < 0:
                found[0] /= EXACT_POWER[-power]
            else:
                found[0] *= EXACT_POWER[power]
            if is_negative and not (is_whole and mantissa == 0):  # −0 is a whole number, of which there is one zero
                found[0] = -found[0]
            return p
        if mantissa and nearest_double(mantissa, power, found):
            if is_negative:
                found[0] = -found[0]
            return p
    found[0] = read_double(start, &end)
    return p if end == p and isfinite(found[0]) else NULL


# ----------------------------------------------------------------------------------------------------------- other values

cdef inline const char *space(const char *p) noexcept nogil:
    """Return what is behind white space."""
    while p[0] == b' ' or p[0] == b'\n' or p[0] == b'\t' or p[0] == b'\r':
        p += 1
    return p


cdef struct Text:
    unsigned char bits   # of all its bytes together: the highest is of none that is ASCII
    bint has_escapes


cdef inline const char *string(const char *p, Text *text) noexcept nogil:
    """Step over a string, behind its opening quote; NULL where it does not end. What is escaped is not looked at."""
    cdef unsigned char c, bits = 0
    while True:
        c = <unsigned char>p[0]
        if c == b'"':
            text.bits |= bits
            return p + 1
        if c == b'\\':
            text.has_escapes = True
            p += 1
            c = <unsigned char>p[0]
        if c < b' ':
            return NULL
        bits |= c
        p += 1


cdef inline const char *word(const char *p, const char *end, const char *text, Py_ssize_t size) noexcept nogil:
    return p + size if end - p >= size and memcmp(p, text, size) == 0 else NULL


cdef inline const char *scalar(const char *p, const char *end, Text *text) noexcept:
    """Step over a value that is neither object nor array; NULL where it is, or no value."""
    cdef double ignored
    if p[0] == b'"':
        return string(p + 1, text)
    if p[0] == b't':
        return word(p, end, b"true", 4)
    if p[0] == b'f':
        return word(p, end, b"false", 5)
    if p[0] == b'n':
        return word(p, end, b"null", 4)
    return number(p, &ignored)


cdef const char *value(const char *p, const char *end, Text *text, int depth) noexcept:
    """Step over any value; NULL where it is none, or nested too deep."""
    cdef char closing
    if p[0] != b'{' and p[0] != b'[':
        return scalar(p, end, text)
    if depth == 0:
        return NULL
    closing = b'}' if p[0] == b'{' else b']'
    p = space(p + 1)
    if p[0] == closing:
        return p + 1
    while True:
        if closing == b'}':
            if p[0] != b'"':
                return NULL
            p = string(p + 1, text)
            if p == NULL:
                return NULL
            p = space(p)
            if p[0] != b':':
                return NULL
            p = space(p + 1)
        p = value(p, end, text, depth - 1)
        if p == NULL:
            return NULL
        p = space(p)
        if p[0] == closing:
            return p + 1
        if p[0] != b',':
            return NULL
        p = space(p + 1)


# ----------------------------------------------------------------------------------------------------------------- tokens

cdef struct Slot:
    uint64_t hash
    const char *text
    int32_t size
    int32_t code  # 0: free


cdef class _Dictionary:
    """The JSON texts of one column, each with a code from 1 on."""

    cdef Slot *slots
    cdef Py_ssize_t n_slots
    cdef list tokens

    def __cinit__(self):
        self.n_slots = FIRST_SLOTS
        self.slots = <Slot *>PyMem_Calloc(FIRST_SLOTS, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        self.tokens = [b""]

    def __dealloc__(self):
        PyMem_Free(self.slots)

    cdef int32_t code(self, const char *text, Py_ssize_t size) except -1:
        """Return the code of a text, a new one if it has none; 0 where there is no room for it."""
        cdef uint64_t hash = _hash(text, size)
        cdef Slot *slot
        cdef Py_ssize_t i
        cdef bytes token
        for i in range(MAX_PROBES):
            slot = &self.slots[(hash + <uint64_t>i) & <uint64_t>(self.n_slots - 1)]
            if slot.code == 0:
                break
            if slot.hash == hash and slot.size == size and is_equal(slot.text, text, size):
                return slot.code
        else:
            return 0
        if size > MAX_TOKEN_BYTES or len(self.tokens) > MAX_TOKENS:
            return 0
        token = PyBytes_FromStringAndSize(text, size)
        slot.hash = hash
        slot.text = PyBytes_AS_STRING(token)
        slot.size = <int32_t>size
        slot.code = <int32_t>len(self.tokens)
        self.tokens.append(token)
        if 2 * len(self.tokens) > self.n_slots:
            self._grow()
        return <int32_t>len(self.tokens) - 1

    cdef int _grow(self) except -1:
        cdef Py_ssize_t n = 2 * self.n_slots, at, i, k
        cdef Slot *slots = <Slot *>PyMem_Calloc(n, sizeof(Slot))
        if slots == NULL:
            raise MemoryError
        for i in range(self.n_slots):
            if self.slots[i].code:
                for k in range(MAX_PROBES):  # one without a place is given another code when it comes again
                    at = <Py_ssize_t>((self.slots[i].hash + <uint64_t>k) & <uint64_t>(n - 1))
                    if slots[at].code == 0:
                        slots[at] = self.slots[i]
                        break
        PyMem_Free(self.slots)
        self.slots, self.n_slots = slots, n
        return 0


cdef inline uint64_t _hash(const char *text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t hash = <uint64_t>size, part
    while size >= 8:
        memcpy(&part, text, 8)
        hash = (hash ^ part) * <uint64_t>0x9E3779B97F4A7C15
        hash ^= hash >> 29
        text += 8
        size -= 8
    part = 0
    while size:
        size -= 1
        part = part << 8 | <uint64_t><unsigned char>text[size]
    hash = (hash ^ part) * <uint64_t>0x9E3779B97F4A7C15
    return hash ^ (hash >> 29)


# ----------------------------------------------------------------------------------------------------------------- events

cdef struct Field:
    const char *key  # in quotes
    Py_ssize_t size
    int kind
    int column
    int64_t event    # the last one that had it


cdef struct Fields:
    Field *first
    int n


cdef class Parser:
    """Reads events that have these fields, and these features; (name, kind, column) each, in the order that producers write them.

    Columns of a kind count from 0. tokens: of each TOKEN column the JSON texts by code; the first stands for none. Raises ValueError for a
    column that a kind has not.
    """

    cdef Fields event, features
    cdef list keys
    cdef list dictionaries
    cdef int[7] n_columns
    cdef int64_t n_events

    # what `parse` writes to; rows of n
    cdef Py_ssize_t n
    cdef double *numbers
    cdef int32_t *codes
    cdef int64_t *integers
    cdef list objects
    cdef unsigned char flags

    def __cinit__(self, event, features):
        self.keys = []
        self.event = self._fields(event)
        self.features = self._fields(features)
        fields = [*event, *features]
        for kind in range(7):
            columns = sorted(column for _, of_kind, column in fields if of_kind == kind)
            if kind not in (SKIPPED, FEATURES) and columns != list(range(len(columns))):
                raise ValueError(f"columns of kind {kind} are {columns}")
            self.n_columns[kind] = len(columns)
        if any(not SKIPPED <= kind <= FEATURES for _, kind, _ in fields):
            raise ValueError("a kind is unknown")
        if any(kind == FEATURES for _, kind, _ in features):
            raise ValueError("features have no features")
        self.dictionaries = [_Dictionary() for _ in range(self.n_columns[IS_TOKEN])]

    cdef Fields _fields(self, fields) except *:
        cdef Fields found
        found.n = <int>len(fields)
        found.first = <Field *>PyMem_Calloc(max(1, found.n), sizeof(Field))
        if found.first == NULL:
            raise MemoryError
        for i, (name, kind, column) in enumerate(fields):
            key = b'"' + name.encode() + b'"'
            self.keys.append(key)
            found.first[i] = Field(PyBytes_AS_STRING(key), len(key), kind, column, 0)
        return found

    def __dealloc__(self):
        PyMem_Free(self.event.first)
        PyMem_Free(self.features.first)

    @property
    def tokens(self):
        return [(<_Dictionary>dictionary).tokens for dictionary in self.dictionaries]

    def forget(self, int column):
        """Begin a TOKEN column's codes anew; lists of its texts that were taken before stay as they are."""
        self.dictionaries[range(len(self.dictionaries))[column]] = _Dictionary()

    def parse(
        self,
        list values,
        Py_ssize_t max_bytes,
        double[:, ::1] numbers,
        int32_t[:, ::1] codes,
        int64_t[:, ::1] integers,
        uint8_t[::1] outcomes,
    ):
        """Read events into arrays, shape (columns of the kind, events); return the columns of texts, then those of raw values, as lists.

        values: an event each, None for none. max_bytes: longer ones are odd. outcomes: of each, shape (events,). Of an odd one everything
        else is left undefined, within what the types allow. Raises ValueError for arrays of another shape, TypeError for a value of
        another type.
        """
        cdef Py_ssize_t n = len(values), at
        cdef const char *p
        cdef const char *end
        cdef bytes record, ahead
        for found, kind in ((numbers, NUMBER), (codes, TOKEN), (integers, INTEGER)):
            if found.shape[0] != self.n_columns[kind] or found.shape[1] != n:
                raise ValueError(f"the array of kind {kind} has shape {found.shape}, not {(self.n_columns[kind], n)}")
        if outcomes.shape[0] != n:
            raise ValueError(f"{outcomes.shape[0]} outcomes of {n} events")
        if n == 0:
            return [[] for _ in range(self.n_columns[IS_TEXT] + self.n_columns[IS_RAW])]
        self.n = n
        self.numbers = &numbers[0, 0] if numbers.shape[0] else NULL
        self.codes = &codes[0, 0] if codes.shape[0] else NULL
        self.integers = &integers[0, 0] if integers.shape[0] else NULL
        self.objects = [[None] * n for _ in range(self.n_columns[IS_TEXT] + self.n_columns[IS_RAW])]
        for at in range(n):
            if at + AHEAD < n:
                ahead = values[at + AHEAD]
                if ahead is not None:
                    fetch_ahead(PyBytes_AS_STRING(ahead), PyBytes_GET_SIZE(ahead))
            record = values[at]
            if record is None or PyBytes_GET_SIZE(record) > max_bytes:
                outcomes[at] = IS_ODD
                continue
            p = PyBytes_AS_STRING(record)
            end = p + PyBytes_GET_SIZE(record)
            self.n_events += 1
            self.flags = 0
            p = self._object(space(p), end, at, &self.event)
            outcomes[at] = self.flags | (IS_ODD if p == NULL or space(p) != end else 0)
        objects, self.objects = self.objects, None
        self.numbers, self.codes, self.integers = NULL, NULL, NULL
        return objects

    cdef const char *_object(self, const char *p, const char *end, Py_ssize_t at, Fields *fields) except? NULL:
        """Read an object's fields. Return what is behind it; NULL where it is not as expected."""
        cdef Field *field
        cdef int expected = 0, n_found = 0, i
        cdef bint is_inner = fields == &self.features
        if p[0] != b'{':
            return NULL
        p = space(p + 1)
        if p[0] == b'}':
            p += 1
        else:
            while True:
                if p[0] != b'"':
                    return NULL
                if expected >= fields.n:
                    expected = 0
                field = &fields.first[expected]
                if expected < fields.n and end - p > field.size and is_equal(p, field.key, field.size):
                    p += field.size
                else:
                    p = _name(p, fields, &expected)
                    if p == NULL:
                        return NULL
                    field = &fields.first[expected] if expected < fields.n else NULL
                if p[0] != b':':
                    p = space(p)
                    if p[0] != b':':
                        return NULL
                p = space(p + 1)
                if field != NULL:
                    if field.event == self.n_events:
                        return NULL
                    field.event = self.n_events
                    n_found += 1
                    expected += 1
                    p = self._value(p, end, at, field)
                else:
                    self.flags |= is_inner * HAS_MORE
                    p = self._skipped(p, end)
                if p == NULL:
                    return NULL
                p = space(p)
                if p[0] == b'}':
                    p += 1
                    break
                if p[0] != b',':
                    return NULL
                p = space(p + 1)
        if n_found < fields.n:
            for i in range(fields.n):
                field = &fields.first[i]
                if field.event == self.n_events:
                    continue
                if field.kind == IS_NUMBER:
                    self.numbers[field.column * self.n + at] = INFINITY
                elif field.kind == IS_TOKEN:
                    self.codes[field.column * self.n + at] = 0
                elif field.kind == IS_INTEGER or field.kind == IS_FEATURES:
                    return NULL
        return p

    cdef inline const char *_value(self, const char *p, const char *end, Py_ssize_t at, Field *field) except? NULL:
        """Read a field's value into its column. Return what is behind it; NULL where it is not as expected."""
        cdef const char *start = p
        cdef Text text = Text(0, False)
        cdef uint64_t integer = 0
        cdef int32_t code
        if field.kind == IS_NUMBER:
            if p[0] == b'-' or 0 <= digit(p) <= 9:
                return number(p, &self.numbers[field.column * self.n + at])
            self.numbers[field.column * self.n + at] = NAN if p[0] == b'n' else -INFINITY
            p = scalar(p, end, &text)
            self.flags |= (text.bits >> 7) * IS_NOT_ASCII
            return NULL if p == NULL or text.has_escapes or _is_special(start, p - start) else p
        if field.kind == IS_TOKEN:
            p = scalar(p, end, &text)
            if p != NULL:
                code = (<_Dictionary>self.dictionaries[field.column]).code(start, p - start)
                self.codes[field.column * self.n + at] = code
                if code == 0:
                    return NULL
            return p
        if field.kind == IS_INTEGER:
            p += p[0] == b'-'
            if p[0] == b'0' and 0 <= digit(p + 1) <= 9:
                return NULL
            while 0 <= digit(p) <= 9 and p - start < MAX_DIGITS:
                integer = integer * 10 + <uint64_t>digit(p)
                p += 1
            if not 0 <= digit(p - 1) <= 9 or 0 <= digit(p) <= 9 or integer > <uint64_t>INT64_MAX:
                return NULL
            self.integers[field.column * self.n + at] = -<int64_t>integer if start[0] == b'-' else <int64_t>integer
            return p  # behind a point or an exponent comes no comma
        if field.kind == IS_TEXT:
            if p[0] != b'"':
                return word(p, end, b"null", 4)
            p = string(p + 1, &text)
            if p == NULL or text.has_escapes:
                return NULL
            self.flags |= (text.bits >> 7) * IS_NOT_ASCII
            (<list>self.objects[field.column])[at] = PyBytes_FromStringAndSize(start + 1, p - start - 2)
            return p
        if field.kind == IS_RAW:
            p = value(p, end, &text, MAX_DEPTH)
            if p == NULL or (text.has_escapes and start[0] != b'"'):
                return NULL
            self.flags |= (text.bits >> 7) * IS_NOT_ASCII
            (<list>self.objects[self.n_columns[IS_TEXT] + field.column])[at] = PyBytes_FromStringAndSize(start, p - start)
            return p
        if field.kind == IS_FEATURES:
            return self._object(p, end, at, &self.features)
        return self._skipped(p, end)

    cdef inline const char *_skipped(self, const char *p, const char *end) noexcept:
        """Step over a value that nothing is made of; NULL where it is none, or has escapes, which only a JSON parser knows all of."""
        cdef Text text = Text(0, False)
        p = value(p, end, &text, MAX_DEPTH)
        self.flags |= (text.bits >> 7) * IS_NOT_ASCII
        return NULL if text.has_escapes else p


cdef inline bint _is_special(const char *text, Py_ssize_t size) noexcept nogil:
    """Whether a JSON text stands for a number that is not finite, as far as its end tells."""
    return (size >= 5 and memcmp(text + size - 4, b'NaN"', 4) == 0) or (size >= 10 and memcmp(text + size - 9, b'Infinity"', 9) == 0)


cdef const char *_name(const char *p, Fields *fields, int *found) noexcept nogil:
    """Step over a name that is not the expected one; NULL where it does not end, has escapes, or is
    unknown and may be no UTF-8.

    found: the field that was expected; then the one that it is, or their number if it is none of them.
    """
    cdef const char *start = p
    cdef Text text = Text(0, False)
    cdef int k, i, expected = found[0]
    p = string(p + 1, &text)
    if p == NULL or text.has_escapes:
        return NULL
    found[0] = fields.n
    for k in range(fields.n):
        i = expected + k
        if i >= fields.n:
            i -= fields.n
        if fields.first[i].size == p - start and is_equal(start, fields.first[i].key, p - start):
            found[0] = i
            return p
    return NULL if text.bits >> 7 else p
