// Registers of several floats. Included once for each level of instructions, which says how many numbers one of its
// registers holds (ROSLIN_LANES): no guard, no headers.

constexpr int LANES = ROSLIN_LANES;

#if defined(__GNUC__)
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t Half __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
#define ROSLIN_INLINE static inline __attribute__((always_inline))

ROSLIN_INLINE Lanes load(const float *from) { return *reinterpret_cast<const Lanes *>(from); }

ROSLIN_INLINE Lanes load(const BFloat16 *from) {
    return reinterpret_cast<Lanes>(__builtin_convertvector(*reinterpret_cast<const Half *>(from), Whole) << 16);
}

ROSLIN_INLINE void store(float *to, Lanes x) { *reinterpret_cast<Lanes *>(to) = x; }

ROSLIN_INLINE Lanes all(float x) { return x - Lanes{}; }

ROSLIN_INLINE Lanes higher(Lanes x, Lanes y) { return x > y ? x : y; }

// x in the lanes from `begin` on and before `end`, another number elsewhere.
ROSLIN_INLINE Lanes within(Lanes x, int64_t begin, int64_t end, float elsewhere) {
    Whole lane;
    for (int i = 0; i < LANES; ++i) lane[i] = i;
    Whole inside = (lane >= static_cast<int32_t>(begin)) & (lane < static_cast<int32_t>(end));
    return inside ? x : all(elsewhere);
}

// 2^x for x up to 0, to 1e-7 of it: 2 to the nearest whole number times a Taylor polynomial of what is left.
ROSLIN_INLINE Lanes power_of_2(Lanes x) {
    x = x < -126.0f ? all(-126.0f) : x;
    const Lanes magic = all(12582912.0f);  // 1.5 · 2^23: what is added to it is rounded to a whole number
    Lanes near = x + magic;
    Lanes y = (x - (near - magic)) * 0.69314718056f;
    Lanes p = y * (1.0f / 5040) + 1.0f / 720;
    p = p * y + 1.0f / 120;
    p = p * y + 1.0f / 24;
    p = p * y + 1.0f / 6;
    p = p * y + 0.5f;
    p = p * y + 1.0f;
    p = p * y + 1.0f;
    Whole exponent = reinterpret_cast<Whole>(near) - reinterpret_cast<Whole>(magic);
    return reinterpret_cast<Lanes>(reinterpret_cast<Whole>(p) + (exponent << 23));
}
#else
#define ROSLIN_INLINE static inline

struct Lanes {
    float at[LANES];
};

template <typename T>
ROSLIN_INLINE Lanes load(const T *from) {
    Lanes x;
    for (int i = 0; i < LANES; ++i) x.at[i] = widened(from[i]);
    return x;
}

ROSLIN_INLINE void store(float *to, Lanes x) { std::memcpy(to, x.at, sizeof x.at); }

ROSLIN_INLINE Lanes all(float y) {
    Lanes x;
    for (int i = 0; i < LANES; ++i) x.at[i] = y;
    return x;
}

ROSLIN_INLINE Lanes operator+(Lanes x, Lanes y) {
    for (int i = 0; i < LANES; ++i) x.at[i] += y.at[i];
    return x;
}

ROSLIN_INLINE Lanes operator*(Lanes x, Lanes y) {
    for (int i = 0; i < LANES; ++i) x.at[i] *= y.at[i];
    return x;
}

ROSLIN_INLINE Lanes operator/(Lanes x, Lanes y) {
    for (int i = 0; i < LANES; ++i) x.at[i] /= y.at[i];
    return x;
}

ROSLIN_INLINE Lanes higher(Lanes x, Lanes y) {
    for (int i = 0; i < LANES; ++i) x.at[i] = x.at[i] > y.at[i] ? x.at[i] : y.at[i];
    return x;
}

ROSLIN_INLINE Lanes within(Lanes x, int64_t begin, int64_t end, float elsewhere) {
    for (int i = 0; i < LANES; ++i) x.at[i] = i >= begin && i < end ? x.at[i] : elsewhere;
    return x;
}

ROSLIN_INLINE Lanes power_of_2(Lanes x) {
    for (int i = 0; i < LANES; ++i) x.at[i] = std::exp2(x.at[i]);
    return x;
}
#endif

ROSLIN_INLINE float sum(Lanes x) {
    float at[LANES];
    store(at, x);
    for (int half = LANES / 2; half; half /= 2) {
        for (int i = 0; i < half; ++i) at[i] += at[i + half];
    }
    return at[0];
}
