# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Hashes of many short texts at once: zlib's CRC-32, and the first 32 bits of BLAKE2b (RFC 7693) with a digest of four bytes.

What hashlib and zlib give, without an object and a call for each.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <string.h>

    static uint32_t CRC_TABLE[4][256];

    static void fill_crc_table(void) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t crc = i;
            for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
            CRC_TABLE[0][i] = crc;
        }
        for (uint32_t i = 0; i < 256; i++)
            for (int k = 1; k < 4; k++) CRC_TABLE[k][i] = CRC_TABLE[k - 1][i] >> 8 ^ CRC_TABLE[0][CRC_TABLE[k - 1][i] & 0xFF];
    }

    static inline uint32_t crc_of(const uint8_t *text, size_t size) {
        uint32_t crc = 0xFFFFFFFFu;
        for (; size >= 4; size -= 4, text += 4) {  /* four bytes with four lookups that do not wait for each other */
            crc ^= (uint32_t)text[0] | (uint32_t)text[1] << 8 | (uint32_t)text[2] << 16 | (uint32_t)text[3] << 24;
            crc = CRC_TABLE[3][crc & 0xFF] ^ CRC_TABLE[2][crc >> 8 & 0xFF] ^ CRC_TABLE[1][crc >> 16 & 0xFF] ^ CRC_TABLE[0][crc >> 24];
        }
        for (; size; size--, text++) crc = crc >> 8 ^ CRC_TABLE[0][(crc ^ *text) & 0xFF];
        return ~crc;
    }

    static const uint64_t IV[8] = {
        0x6A09E667F3BCC908u, 0xBB67AE8584CAA73Bu, 0x3C6EF372FE94F82Bu, 0xA54FF53A5F1D36F1u,
        0x510E527FADE682D1u, 0x9B05688C2B3E6C1Fu, 0x1F83D9ABFB41BD6Bu, 0x5BE0CD19137E2179u,
    };
    static const uint8_t SIGMA[10][16] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
        {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
        {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
        {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
        {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    };

    static inline uint64_t turned(uint64_t x, int bits) { return x >> bits | x << (64 - bits); }

    #define MIX(a, b, c, d, x, y) \\
        v[a] += v[b] + (x); v[d] = turned(v[d] ^ v[a], 32); v[c] += v[d]; v[b] = turned(v[b] ^ v[c], 24); \\
        v[a] += v[b] + (y); v[d] = turned(v[d] ^ v[a], 16); v[c] += v[d]; v[b] = turned(v[b] ^ v[c], 63)

    static void compress(uint64_t *h, const uint8_t *block, uint64_t n_bytes, int is_last) {
        uint64_t v[16], m[16];
        for (int i = 0; i < 16; i++) {
            m[i] = 0;
            for (int k = 7; k >= 0; k--) m[i] = m[i] << 8 | block[8 * i + k];
        }
        for (int i = 0; i < 8; i++) v[i] = h[i], v[i + 8] = IV[i];
        v[12] ^= n_bytes;
        if (is_last) v[14] = ~v[14];
        #pragma GCC unroll 12
        for (int round = 0; round < 12; round++) {
            const uint8_t *s = SIGMA[round % 10];
            MIX(0, 4, 8, 12, m[s[0]], m[s[1]]); MIX(1, 5, 9, 13, m[s[2]], m[s[3]]);
            MIX(2, 6, 10, 14, m[s[4]], m[s[5]]); MIX(3, 7, 11, 15, m[s[6]], m[s[7]]);
            MIX(0, 5, 10, 15, m[s[8]], m[s[9]]); MIX(1, 6, 11, 12, m[s[10]], m[s[11]]);
            MIX(2, 7, 8, 13, m[s[12]], m[s[13]]); MIX(3, 4, 9, 14, m[s[14]], m[s[15]]);
        }
        for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
    }

    static uint32_t blake2b_32_of(const uint8_t *text, size_t size) {
        uint64_t h[8], done = 0;
        uint8_t block[128];
        memcpy(h, IV, sizeof h);
        h[0] ^= 0x01010004u;  /* a digest of four bytes, no key */
        for (; size > 128; size -= 128, text += 128) compress(h, text, done += 128, 0);
        memset(block, 0, sizeof block);
        memcpy(block, text, size);
        compress(h, block, done + size, 1);
        return (uint32_t)h[0] << 24 | ((uint32_t)h[0] & 0xFF00) << 8 | ((uint32_t)h[0] >> 8 & 0xFF00) | (uint32_t)h[0] >> 24;
    }
    """
    void fill_crc_table() noexcept nogil
    uint32_t crc_of(const uint8_t *, size_t) noexcept nogil
    uint32_t blake2b_32_of(const uint8_t *, size_t) noexcept nogil


fill_crc_table()


ctypedef uint32_t (*Hash)(const uint8_t *, size_t) noexcept nogil


def crcs(list texts, uint32_t[::1] found):
    """Write the CRC-32 of each text, shape (n,). Raises ValueError for another length, TypeError for what is no bytes."""
    hash_all(texts, found, crc_of)


def blake2b_32(list texts, uint32_t[::1] found):
    """Write the digest of four bytes of each text, as a big-endian number, shape (n,). Raises as `crcs` does."""
    hash_all(texts, found, blake2b_32_of)


cdef int hash_all(list texts, uint32_t[::1] found, Hash hash_of) except -1:
    cdef Py_ssize_t i
    cdef bytes text
    if found.shape[0] != len(texts):
        raise ValueError(f"{found.shape[0]} places for the hashes of {len(texts)} texts")
    for i in range(len(texts)):
        text = texts[i]
        if text is None:
            raise TypeError(f"text {i} is None")
        found[i] = hash_of(<const uint8_t *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return 0
