// Included by unpack.cpp once for each level, as rows.inl is. A block goes through fp32 [16, block] on its way.

constexpr int64_t MOST_BLOCK = 128;

inline uint16_t rounded(float number) {
    union {
        float value;
        uint32_t bits;
    } both = {number};
    return static_cast<uint16_t>((both.bits + 0x7fff + (both.bits >> 16 & 1)) >> 16);
}

inline void int8_block(const Matrix &m, int64_t tile, const uint8_t *w, float (*to)[MOST_BLOCK]) {
    for (int64_t o = 0; o < TILE; ++o) {
        float scale = m.scale[tile * TILE + o];
        for (int64_t step = 0; step < 16; ++step)
            for (int64_t i = 0; i < 4; ++i)
                to[o][4 * step + i] = static_cast<float>(w[64 * step + 4 * o + i] - 128) * scale;
    }
}

inline void int4_block(const Matrix &m, const uint8_t *w, float (*to)[MOST_BLOCK]) {
    uint16_t halves[2 * TILE];
    std::memcpy(halves, w, sizeof halves);
    w += sizeof halves;
    for (int64_t o = 0; o < TILE; ++o) {
        float scale = half_to_float(halves[o]), shift = half_to_float(halves[TILE + o]);
        for (int64_t step = 0; step < m.block / 8; ++step)
            for (int64_t i = 0; i < 4; ++i) {
                uint8_t both = w[64 * step + 4 * o + i];
                to[o][8 * step + i] = static_cast<float>(both & 15) * scale + shift;
                to[o][8 * step + 4 + i] = static_cast<float>(both >> 4) * scale + shift;
            }
    }
}

inline void fp8_block(const Matrix &m, int64_t tile, const uint8_t *w, float (*to)[MOST_BLOCK]) {
    for (int64_t o = 0; o < TILE; ++o)
        for (int64_t k = 0; k < m.block; ++k) to[o][k] = part_of_fp8(w[k * TILE + o]) * m.scale[tile * TILE + o];
}

inline void plain_block(const Matrix &m, const uint8_t *w, float (*to)[MOST_BLOCK]) {
    const uint16_t *halves = reinterpret_cast<const uint16_t *>(w);
    const float *numbers = reinterpret_cast<const float *>(w);
    for (int64_t o = 0; o < TILE; ++o)
        for (int64_t k = 0; k < m.block; ++k)
            to[o][k] = m.kind == BF16 ? from_bfloat16(halves[(k / 2 * TILE + o) * 2 + k % 2]) : numbers[k * TILE + o];
}

inline void unpack(const Matrix &m, int64_t tile, int64_t rows, uint16_t *out) {
    const uint8_t *w = m.data + tile * m.tile_bytes();
    float block[TILE][MOST_BLOCK];
    for (int64_t b = 0; b < m.blocks(); ++b, w += m.block_bytes()) {
        if (m.kind == INT8) int8_block(m, tile, w, block);
        else if (m.kind == INT4) int4_block(m, w, block);
        else if (m.kind == FP8) fp8_block(m, tile, w, block);
        else plain_block(m, w, block);
        int64_t start = b * m.block, count = m.inputs - start < m.block ? m.inputs - start : m.block;
        for (int64_t o = 0; o < rows; ++o)
            for (int64_t k = 0; k < count; ++k) out[o * m.inputs + start + k] = rounded(block[o][k]);
    }
}
