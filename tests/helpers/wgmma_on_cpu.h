/*
wgmma_on_cpu.h -- products of warpgroups (wgmma.mma_async) on a processor; part of cuda_on_cpu.h.

Operands are read from shared memory as their descriptors say, by the layouts that the PTX manual
calls canonical, K-major: a descriptor that does not tell how a kernel laid its rows gives a wrong
product. What a product may find is modelled by its extremes:
  Products see shared memory through a path of their own. A copy is seen when the thread that made
  it has waited for it and called `show_to_products`; memory that is being overwritten is poisoned.
  In one `order` products read when they are begun, in the other when they are waited for: one
  shows what was read too early, the other what was overwritten too early.
  Sums are poisoned from the first product to the wait that covers the last.
*/

#pragma once

namespace emulation {

constexpr int WARPGROUP = 4 * WARP;
constexpr int K_WORDS = 8;  // of a product of bits

// Offset in the window of shared memory, which begins so that offsets are aligned as addresses are.
inline size_t shared_window() { return (reinterpret_cast<size_t>(shared_begin) & -size_t(1024)) - 1024; }

// Chunk (16 bytes) `chunk` of row `row` of the matrix that a descriptor describes:
//   bits 0-13 the start, 16-29 the leading offset, 32-45 the stride, each in 16 bytes; 49-51 the
//   base offset; 62-63 the swizzle: none, 128, 64 or 32 bytes.
// Rows lie in groups of eight, `stride` apart; in a group without a swizzle each in 16 bytes, the
// second chunk `leading` behind; else each in the swizzle's bytes, whose chunks change places by
// XOR of address bits 4 and up with bits 7 and up.
inline const char* operand_at(unsigned long long descriptor, int row, int chunk)
{
    const unsigned long long unused = 0xcull << 12 | 0xcull << 28 | 0x3fffcull << 44;
    if (descriptor & unused)
        fail("descriptor %016llx: bits that must be 0, or a base offset", descriptor);
    const auto field = [&](int at) { return unsigned(descriptor >> at & 0x3fff) << 4; };
    const int mode = int(descriptor >> 62), chunks = mode ? 16 >> mode : 1;
    unsigned at = field(0) + unsigned(row / 8) * field(32) + unsigned(row % 8 * chunks * 16) +
                  unsigned(chunk) * (mode ? 16 : field(16));
    at ^= (at >> 7 & (chunks - 1)) << 4;
    const char* found = seen_at(reinterpret_cast<const char*>(shared_window() + at));
    if (!found) fail("descriptor %016llx: row %d is not in dynamic shared memory", descriptor, row);
    return found;
}

inline void load_operand(unsigned (&words)[K_WORDS], unsigned long long descriptor, int row)
{
    for (int chunk = 0; chunk < 2; chunk++)
        memcpy(words + 4 * chunk, operand_at(descriptor, row, chunk), 16);
}

// sums += popc(a & w), of the 16 rows of the thread's warp what is the thread's own.
inline void add_product(const Thread& thread, unsigned long long a, unsigned long long w,
                        std::vector<int>& sums)
{
    const int at = int(&thread - &threads[0]) % WARPGROUP, first = at / WARP * 16 + at % WARP / 4;
    unsigned x[2][K_WORDS], y[K_WORDS];
    for (int half = 0; half < 2; half++) load_operand(x[half], a, first + 8 * half);
    for (int i = 0; i < int(sums.size()) / 4; i++)
        for (int e = 0; e < 2; e++) {
            load_operand(y, w, 8 * i + 2 * (at % 4) + e);
            for (int half = 0; half < 2; half++)
                for (int word = 0; word < K_WORDS; word++)
                    sums[4 * i + 2 * half + e] += __builtin_popcount(x[half][word] & y[word]);
        }
}

inline std::vector<int>& sums_of(Products& products, int* registers, size_t count)
{
    for (auto& sums : products.sums)
        if (sums.registers == registers) return sums.values;
    products.sums.push_back({registers, {registers, registers + count}});
    memset(registers, POISON, count * sizeof(int));
    return products.sums.back().values;
}

struct WarpgroupProduct {
    Thread* thread;
    unsigned long long a, w;
    int* registers;
    size_t count;

    static void perform(WarpgroupProduct* const* of)
    {
        for (int i = 0; i < WARP; i++) {
            const WarpgroupProduct& mine = *of[i];
            if (mine.a != of[0]->a || mine.w != of[0]->w)
                fail("lanes 0 and %d begin different products", i);
            Products& products = mine.thread->products;
            if (!products.fenced) fail("a product of registers without begin_products before it");
            auto& sums = sums_of(products, mine.registers, mine.count);
            if (!order) add_product(*mine.thread, mine.a, mine.w, sums);
            products.begun.push_back({mine.a, mine.w, mine.registers, products.groups});
            products.count++;
        }
    }
};

// Ends the products of all groups but the last `pending`.
inline void end_products(int pending)
{
    Products& products = current->products;
    auto& begun = products.begun;
    size_t done = 0;
    for (; done < begun.size() && begun[done].group < products.groups - pending; done++)
        if (order)
            add_product(*current, begun[done].a, begun[done].w,
                        sums_of(products, begun[done].registers, 0));
    begun.erase(begun.begin(), begun.begin() + done);
    for (size_t i = products.sums.size(); i-- > 0;) {
        auto& sums = products.sums[i];
        bool open = false;
        for (auto& product : begun) open |= product.registers == sums.registers;
        if (open) continue;
        memcpy(sums.registers, sums.values.data(), sums.values.size() * sizeof(int));
        products.sums.erase(products.sums.begin() + i);
        products.fenced = false;
    }
}

// At the end of a block: four warps have made the same products, and waited for them.
inline void check_products()
{
    for (size_t i = 0; i < threads.size(); i++) {
        const Products& products = threads[i].products;
        if (!products.begun.empty()) fail("thread %zu returned before its products were made", i);
        if (products.count != threads[i / WARPGROUP * WARPGROUP].products.count)
            fail("thread %zu has not made the products of its warpgroup", i);
        if (products.count && threads.size() % WARPGROUP) fail("a warpgroup is not whole");
    }
}

}  // namespace emulation

// ----------------------------------------------------------------- twins of the PTX wrappers

inline unsigned shared_address(const void* p)
{
    return unsigned(reinterpret_cast<size_t>(p) - emulation::shared_window());
}

// fence.proxy.async
inline void show_to_products()
{
    for (auto& copy : emulation::current->unseen)
        if (char* view = emulation::seen_at(copy.to)) memcpy(view, &copy.data, 16);
    emulation::current->unseen.clear();
}

// wgmma.fence
inline void begin_products() { emulation::current->products.fenced = true; }

// wgmma.commit_group
inline void commit_products() { emulation::current->products.groups++; }

// wgmma.wait_group
template <int PENDING> void wait_for_products() { emulation::end_products(PENDING); }

template <size_t COUNT> void finish_products(int (&)[COUNT]) { emulation::end_products(0); }

// wgmma.mma_async.sync.aligned.m64nNk256.s32.b1.b1.and.popc, of N = 2 * COUNT columns
template <size_t COUNT>
void multiply_and_popc(int (&c)[COUNT], unsigned long long a, unsigned long long w,
                       int line = __builtin_LINE())
{
    using emulation::WarpgroupProduct;
    WarpgroupProduct mine{emulation::current, a, w, c, COUNT};
    emulation::together<WarpgroupProduct, WarpgroupProduct::perform>("multiply_and_popc", line,
                                                                     emulation::ALL, true, mine);
}
