// The product of a tile with R rows, by the kind of its matrix. Included behind the products of a level's own.

template <int R>
void of_rows(const Matrix &m, int64_t tile, const Rows &x, int64_t first, float *sums) {
    const uint8_t *w = m.data + tile * m.tile_bytes();
    switch (m.kind) {
        case INT8: return int8_rows<R>(w, m.blocks(), x, first, sums);
        case INT4: return int4_rows<R>(w, m.blocks(), m.block, x, first, sums);
        case FP8: return fp8_rows<R>(w, x, first, sums);
        case BF16: return bf16_rows<R>(w, x, first, sums);
        default: return fp32_rows<R>(w, x, first, sums);
    }
}
