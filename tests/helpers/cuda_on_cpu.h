/*
cuda_on_cpu.h -- as much of CUDA as it takes to run the text of a kernel on a processor, for tests.

A program includes this header, then an unchanged .cu file, and calls `emulation::run` with the
kernel; tests/emulated.py writes that program and feeds it.

What it models
  Every CUDA thread of a block is a fiber, and runs until it waits: a warp as far as it comes, then
  the next one, so that warps and lanes drift apart as far as barriers allow. `order` = 1 turns
  blocks, warps and lanes round: what works in both orders does not hang on one. Blocks run one
  after the other.
  Operations of a warp wait for the lanes in their mask, __syncthreads for the block; threads that
  have returned are not waited for. When no thread can go on, the program ends and says who waits
  where; so it does when operands are misaligned or lie in the wrong memory.
  Shared memory is filled with POISON before each block. Asynchronous copies poison their
  destination at once, and fill it in the wait that covers their group. Products of warpgroups
  (wgmma) are in wgmma_on_cpu.h, with what they see of shared memory.
  Each array argument lies between two guard zones, which must come out unchanged. Built with
  -fsanitize=address, no access to a guard zone or past the dynamic shared memory goes unseen.

What it does not
  Time, memory order, caches, bank conflicts; two threads that write the same place without a
  barrier between them; blocks that meet in global memory; named barriers, clusters, TMA.
  An index past the end of a static shared array is seen by -fsanitize=undefined alone. Products
  and sums are never contracted: a kernel that means fmaf says so.

Inline PTX is for GPUs alone. A kernel wraps it in functions that stand between
#ifndef CUDA_ON_CPU and #endif; their twins, with the meaning of the PTX manual, are below.
*/

#pragma once
#define CUDA_ON_CPU

#include <link.h>
#include <math.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes) ((void)0)
inline void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
inline void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

// ------------------------------------------------------------------------------- language

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// Static storage that may also be `extern`. All fibers are of one system thread: they share it.
#define __shared__ thread_local

#define VECTORS(T, name)                                                        \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                          \
    struct name##3 { T x, y, z; };                                              \
    struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                  \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }          \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(signed char, char)
VECTORS(unsigned char, uchar)
VECTORS(short, short)
VECTORS(unsigned short, ushort)
VECTORS(int, int)
VECTORS(unsigned, uint)
VECTORS(float, float)
VECTORS(long long, longlong)
VECTORS(unsigned long long, ulonglong)
#undef VECTORS

using dim3 = uint3;
constexpr int warpSize = 32;
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

// ------------------------------------------------------------------------------ execution

namespace emulation {

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;
constexpr unsigned char POISON = 0xA5;
constexpr size_t STACK = 256 << 10;
constexpr size_t GUARD = 4096;
constexpr size_t MOST_SHARED = 227 << 10;  // bytes of a block, on the devices that have most

// What a thread waits for: until all who take part have come, and `perform` has been called once
// with the operands of each lane, null for lanes that take no part.
struct Wait {
    const char* operation;
    int line;
    unsigned mask;  // lanes that take part; 0: the whole block
    bool aligned;   // PTX `.aligned`: no lane of the warp may have returned
    void* operands;
    void (*perform)(void* const* of_lane);
};

struct Fiber {
    ucontext_t context;
    const void* stack = nullptr;
    size_t size = 0;
    void* fake_stack = nullptr;  // kept for AddressSanitizer
};

struct Copy {
    void* to;
    uint4 data;
    int group;
};

// Products of a warpgroup that a thread has begun.
struct Products {
    struct Sums {
        int* registers;  // poisoned while products add to them
        std::vector<int> values;
    };
    struct Product {
        unsigned long long a, w;  // descriptors
        int* registers;
        int group;
    };
    std::vector<Sums> sums;
    std::vector<Product> begun;  // the oldest first
    int groups;                  // committed so far
    int count;                   // of products so far
    bool fenced;                 // whether registers may be added to
};

struct Thread {
    Fiber fiber;
    uint3 index;
    bool returned;
    const Wait* wait;          // null: can go on
    std::vector<Copy> copies;  // asynchronous ones on their way, the oldest first
    int groups;                // of copies committed so far
    std::vector<Copy> unseen;  // done, and not yet shown to products of warpgroups
    Products products;
};

struct Warp {
    Thread* threads;
    int lanes;
    int position;  // of the lane that runs, in order
};

inline const char* name;
inline void (*call)();  // the kernel, with its arguments
inline std::vector<Thread> threads;
inline Thread* current;
inline Warp warp;  // that of `current`
inline Fiber scheduler;
inline int order;
inline char *shared_begin, *shared_end, *dynamic_begin, *dynamic_end;
inline char seen[MOST_SHARED];  // by products of warpgroups, in the place of the dynamic memory

[[noreturn]] inline void fail(const char* format, ...)
{
    fprintf(stderr, "%s, block (%u, %u, %u): ", name, blockIdx.x, blockIdx.y, blockIdx.z);
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    std::_Exit(1);
}

inline void switch_fiber(Fiber& from, Fiber& to)
{
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.size);
    swapcontext(&from.context, &to.context);
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
}

inline int in_order(int i, int count) { return order ? count - 1 - i : i; }

// Of the lanes behind the one that runs, the first that can go on, else the scheduler.
inline Fiber& next_fiber()
{
    while (++warp.position < warp.lanes) {
        Thread& thread = warp.threads[in_order(warp.position, warp.lanes)];
        if (thread.returned || thread.wait) continue;
        current = &thread;
        threadIdx = thread.index;
        return thread.fiber;
    }
    return scheduler;
}

// One fiber makes the same thread of every block.
inline void thread_main()
{
    // The very first fiber was entered from the scheduler.
    const bool first = !scheduler.stack;
    __sanitizer_finish_switch_fiber(nullptr, first ? &scheduler.stack : nullptr,
                                    first ? &scheduler.size : nullptr);
    for (;;) {
        call();
        current->returned = true;
        Fiber& mine = current->fiber;
        switch_fiber(mine, next_fiber());
    }
}

inline void wait_for(const Wait& wait)
{
    current->wait = &wait;
    Fiber& mine = current->fiber;
    switch_fiber(mine, next_fiber());
}

inline int lane() { return int(current - warp.threads); }

// An operation of the lanes in `mask`, which PERFORM does for all of them at once.
template <class Operands, void (*PERFORM)(Operands* const*)>
void together(const char* operation, int line, unsigned mask, bool aligned, Operands& mine)
{
    if (!(mask >> lane() & 1))
        fail("lane %d calls %s (line %d) and is not in its mask %08x", lane(), operation, line, mask);
    wait_for({operation, line, mask, aligned, &mine,
              [](void* const* of) { PERFORM(reinterpret_cast<Operands* const*>(of)); }});
}

// Whether all lanes that `wait` names wait for the same; then the operation is done.
inline bool perform(const Wait& wait)
{
    void* operands[WARP] = {};
    Thread* partners[WARP];
    int count = 0;
    for (int i = 0; i < WARP; i++) {
        Thread* thread = warp.threads + i;
        const bool gone = i >= warp.lanes || thread->returned;
        if (gone && wait.aligned)
            fail("%s (line %d) without lane %d, which has returned", wait.operation, wait.line, i);
        if (gone || !(wait.mask >> i & 1)) continue;
        const Wait* other = thread->wait;
        if (!other || other->perform != wait.perform || other->mask != wait.mask) return false;
        operands[i] = other->operands;
        partners[count++] = thread;
    }
    wait.perform(operands);
    for (int i = 0; i < count; i++) partners[i]->wait = nullptr;
    return true;
}

// Whether any lane of the warp went on.
inline bool run_warp()
{
    warp.position = -1;
    Fiber& first = next_fiber();
    bool moved = &first != &scheduler;
    if (moved) switch_fiber(scheduler, first);
    for (int i = 0; i < warp.lanes; i++) {
        const Thread& thread = warp.threads[i];
        if (!thread.returned && thread.wait && thread.wait->mask) moved |= perform(*thread.wait);
    }
    return moved;
}

[[noreturn]] inline void fail_deadlock()
{
    const Wait* before = nullptr;
    for (Thread& thread : threads) {
        if (!thread.returned && !(before && before->line == thread.wait->line))
            fprintf(stderr, "thread %d waits at %s (line %d)\n", int(&thread - &threads[0]),
                    thread.wait->operation, thread.wait->line);
        before = thread.returned ? nullptr : thread.wait;
    }
    fail("deadlock of these threads and those behind each");
}

// Whether threads of the block were waiting at a barrier; then they can go on.
inline bool pass_barrier()
{
    const Wait* first = nullptr;
    for (Thread& thread : threads) {
        if (thread.returned) continue;
        if (!first) first = thread.wait;
        // A barrier reached in two places is not one barrier.
        if (thread.wait->mask || thread.wait->line != first->line) fail_deadlock();
    }
    for (Thread& thread : threads) thread.wait = nullptr;
    return first;
}

inline void check_products();

inline void run_block()
{
    if (shared_begin) memset(shared_begin, POISON, shared_end - shared_begin);
    if (dynamic_begin)
        ASAN_POISON_MEMORY_REGION(dynamic_end, dynamic_begin + MOST_SHARED - dynamic_end);
    memset(seen, POISON, sizeof seen);
    for (Thread& thread : threads) {
        thread.returned = false;
        thread.copies.clear();
        thread.groups = 0;
        thread.unseen.clear();
        thread.products = {};
    }
    const int count = int(threads.size()), warps = (count + WARP - 1) / WARP;
    do {
        for (int i = 0; i < warps; i++) {
            const int begin = in_order(i, warps) * WARP;
            warp.threads = &threads[begin];
            warp.lanes = count - begin < WARP ? count - begin : WARP;
            while (run_warp()) {}
        }
    } while (pass_barrier());
    check_products();
    if (!dynamic_begin) return;
    ASAN_UNPOISON_MEMORY_REGION(dynamic_end, dynamic_begin + MOST_SHARED - dynamic_end);
    for (char* p = dynamic_end; p < dynamic_begin + MOST_SHARED; p++)
        if (static_cast<unsigned char>(*p) != POISON)
            fail("wrote %d bytes past the dynamic shared memory", int(p - dynamic_end));
}

inline void check_address(const char* what, const void* p, bool shared)
{
    const char* at = static_cast<const char*>(p);
    if (reinterpret_cast<size_t>(p) % 16) fail("%s: an address that is no multiple of 16", what);
    if (shared != (at >= shared_begin && at < shared_end))
        fail("%s: an address that is%s in shared memory", what, shared ? " not" : "");
}

// Where products of warpgroups find what lies at `p`; null outside the dynamic shared memory.
inline char* seen_at(const void* p)
{
    const char* at = static_cast<const char*>(p);
    return at >= dynamic_begin && at < dynamic_end ? seen + (at - dynamic_begin) : nullptr;
}

// ------------------------------------------------------------------------------ launching

struct Array {
    long long argument;
    char* data;
    size_t bytes;
    bool is_output;
};
inline std::vector<Array> arrays;
inline long long arguments_read;

template <class T> T read()
{
    T value;
    if (fread(&value, sizeof value, 1, stdin) != 1) fail("the launch is cut short");
    return value;
}

// Of an argument: its bytes, or -1 for a null pointer; then the value, or what the array holds.
template <class T> T read_argument()
{
    const long long argument = arguments_read++, bytes = read<long long>();
    if constexpr (std::is_pointer_v<T>) {
        if (bytes < 0) return nullptr;
        void* room;
        if (posix_memalign(&room, 256, bytes + 2 * GUARD)) fail("no memory for an argument");
        memset(room, POISON, bytes + 2 * GUARD);
        char* data = static_cast<char*>(room) + GUARD;
        if (fread(data, 1, bytes, stdin) != size_t(bytes)) fail("the launch is cut short");
        ASAN_POISON_MEMORY_REGION(data - GUARD, GUARD);
        ASAN_POISON_MEMORY_REGION(data + bytes, GUARD);
        arrays.push_back({argument, data, size_t(bytes), !std::is_const_v<std::remove_pointer_t<T>>});
        return reinterpret_cast<T>(data);
    } else {
        if (bytes != sizeof(T))
            fail("argument %lld has %lld bytes, not %zu", argument, bytes, sizeof(T));
        return read<T>();
    }
}

inline void write_outputs()
{
    for (const Array& array : arrays) {
        ASAN_UNPOISON_MEMORY_REGION(array.data - GUARD, GUARD);
        ASAN_UNPOISON_MEMORY_REGION(array.data + array.bytes, GUARD);
        for (size_t i = 0; i < GUARD; i++)
            for (const char* p : {array.data - 1 - i, array.data + array.bytes + i})
                if (static_cast<unsigned char>(*p) != POISON)
                    fail("wrote outside argument %lld, at byte %td of %zu", array.argument,
                         p - array.data, array.bytes);
        if (!array.is_output) continue;
        fwrite(&array.argument, sizeof array.argument, 1, stdout);
        fwrite(array.data, 1, array.bytes, stdout);
    }
}

// Where this program keeps its thread_local variables: they are the shared memory.
inline int find_shared(dl_phdr_info* program, size_t, void*)
{
    for (int i = 0; i < program->dlpi_phnum; i++)
        if (program->dlpi_phdr[i].p_type == PT_TLS) {
            shared_begin = static_cast<char*>(program->dlpi_tls_data);
            shared_end = shared_begin + program->dlpi_phdr[i].p_memsz;
        }
    return 1;  // the program comes first, its libraries do not matter
}

inline void make_threads()
{
    threads = std::vector<Thread>(blockDim.x * blockDim.y * blockDim.z);
    for (unsigned i = 0; i < threads.size(); i++) {
        Thread& thread = threads[i];
        thread.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        thread.wait = nullptr;
        getcontext(&thread.fiber.context);
        stack_t& stack = thread.fiber.context.uc_stack;
        thread.fiber.stack = stack.ss_sp = new char[STACK];
        thread.fiber.size = stack.ss_size = STACK;
        makecontext(&thread.fiber.context, thread_main, 0);
        // Else AddressSanitizer forgets all it knows of a stack whenever it is switched to.
        stack.ss_size = 0;
    }
}

// Reads a launch from standard input, does it, and writes the arrays that the kernel may change,
// each behind its number among the arguments. `dynamic` is the kernel's dynamic shared memory, of
// MOST_SHARED bytes; null if it has none.
template <class... P> int run(const char* kernel_name, void (*kernel)(P...), void* dynamic)
{
    name = kernel_name;
    gridDim = read<dim3>();
    blockDim = read<dim3>();
    const unsigned dynamic_bytes = read<unsigned>();
    order = read<int>();
    static const std::tuple<P...> arguments{read_argument<P>()...};
    static const auto entry = kernel;
    call = [] { std::apply(entry, arguments); };

    dl_iterate_phdr(find_shared, nullptr);
    if (dynamic_bytes > (dynamic ? MOST_SHARED : 0)) fail("%u bytes of shared memory", dynamic_bytes);
    dynamic_begin = static_cast<char*>(dynamic);
    dynamic_end = dynamic ? dynamic_begin + dynamic_bytes : nullptr;
    if (blockDim.x * blockDim.y * blockDim.z > 1024) fail("more than 1024 threads in a block");
    if (gridDim.y > 65535 || gridDim.z > 65535) fail("more than 65535 blocks in y or z");
    make_threads();
    const int blocks = int(gridDim.x * gridDim.y * gridDim.z);
    for (int i = 0; i < blocks; i++) {
        const unsigned block = in_order(i, blocks);
        blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y,
                    block / gridDim.x / gridDim.y};
        run_block();
    }
    write_outputs();
    return 0;
}

template <class T> struct Shuffle {
    T value;
    int from;
    T result;

    static void perform(Shuffle* const* of)
    {
        for (int i = 0; i < WARP; i++) {
            if (!of[i]) continue;
            if (Shuffle* source = of[of[i]->from])
                of[i]->result = source->value;
            else  // the manual leaves it open
                memset(static_cast<void*>(&of[i]->result), POISON, sizeof(T));
        }
    }
};

template <class T> T shuffle(const char* operation, int line, unsigned mask, T value, int from)
{
    Shuffle<T> mine{value, from, value};
    together<Shuffle<T>, Shuffle<T>::perform>(operation, line, mask, false, mine);
    return mine.result;
}

struct Vote {
    bool vote;
    unsigned result;

    static void perform(Vote* const* of)
    {
        unsigned votes = 0;
        for (int i = 0; i < WARP; i++) votes |= unsigned(of[i] && of[i]->vote) << i;
        for (int i = 0; i < WARP; i++)
            if (of[i]) of[i]->result = votes;
    }
};

inline unsigned vote(const char* operation, int line, unsigned mask, bool value)
{
    Vote mine{value, 0};
    together<Vote, Vote::perform>(operation, line, mask, false, mine);
    return mine.result;
}

struct Nothing {
    static void perform(Nothing* const*) {}
};

// COUNT matrices of eight rows of 16 bytes; row r of matrix i is where lane 8*i + r says.
template <int COUNT> struct Matrices {
    const void* row;
    unsigned words[COUNT];

    static void perform(Matrices* const* of)
    {
        for (int i = 0; i < WARP; i++)
            for (int j = 0; j < COUNT; j++)
                memcpy(&of[i]->words[j],
                       static_cast<const char*>(of[8 * j + i / 4]->row) + i % 4 * 4, 4);
    }
};

template <int COUNT>
void load_matrices(const char* operation, int line, unsigned (&r)[COUNT], const void* row)
{
    Matrices<COUNT> mine{row, {}};
    if (lane() < 8 * COUNT) check_address(operation, row, true);
    together<Matrices<COUNT>, Matrices<COUNT>::perform>(operation, line, ALL, true, mine);
    memcpy(r, mine.words, sizeof r);
}

// c += popc(a & b) of 16 rows, 8 columns, 8 words.
struct Product {
    const unsigned *a, *b;
    int* c;

    static void perform(Product* const* of)
    {
        for (int i = 0; i < WARP; i++)
            for (int e = 0; e < 4; e++) {
                const int row = i / 4 + e / 2 * 8, column = 2 * (i % 4) + e % 2;
                for (int word = 0; word < 8; word++)
                    of[i]->c[e] += __builtin_popcount(
                        of[row % 8 * 4 + word % 4]->a[row / 8 + word / 4 * 2] &
                        of[column * 4 + word % 4]->b[word / 4]);
            }
    }
};

}  // namespace emulation

// ----------------------------------------------------------- operations of a block, of a warp

inline void __syncthreads(int line = __builtin_LINE())
{
    emulation::wait_for({"__syncthreads", line, 0, false, nullptr, nullptr});
}

inline void __syncwarp(unsigned mask = emulation::ALL, int line = __builtin_LINE())
{
    emulation::Nothing mine;
    emulation::together<emulation::Nothing, emulation::Nothing::perform>("__syncwarp", line, mask,
                                                                       false, mine);
}

// `segment` lanes, a power of two, shuffle among themselves; past its ends a lane keeps its own.
template <class T>
T __shfl_sync(unsigned mask, T value, int from, int segment = 32, int line = __builtin_LINE())
{
    const int begin = emulation::lane() & -segment;
    return emulation::shuffle("__shfl_sync", line, mask, value, begin | (from & (segment - 1)));
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int segment = 32, int line = __builtin_LINE())
{
    const int lane = emulation::lane(), from = lane ^ bits;
    const bool inside = from < (lane & -segment) + segment;
    return emulation::shuffle("__shfl_xor_sync", line, mask, value, inside ? from : lane);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int segment = 32, int line = __builtin_LINE())
{
    const int lane = emulation::lane(), from = lane + int(by);
    const bool inside = from < (lane & -segment) + segment;
    return emulation::shuffle("__shfl_down_sync", line, mask, value, inside ? from : lane);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int segment = 32, int line = __builtin_LINE())
{
    const int lane = emulation::lane(), from = lane - int(by);
    const bool inside = from >= (lane & -segment);
    return emulation::shuffle("__shfl_up_sync", line, mask, value, inside ? from : lane);
}

inline unsigned __ballot_sync(unsigned mask, int value, int line = __builtin_LINE())
{
    return emulation::vote("__ballot_sync", line, mask, value);
}

inline int __any_sync(unsigned mask, int value, int line = __builtin_LINE())
{
    return emulation::vote("__any_sync", line, mask, value) != 0;
}

inline int __all_sync(unsigned mask, int value, int line = __builtin_LINE())
{
    return emulation::vote("__all_sync", line, mask, !value) == 0;
}

// Blocks and fibers take turns, so that nothing comes between reading and writing.
template <class T> T atomicAdd(T* at, std::common_type_t<T> by) { return std::exchange(*at, *at + by); }
template <class T> T atomicOr(T* at, std::common_type_t<T> by) { return std::exchange(*at, *at | by); }

// ----------------------------------------------------------------- twins of the PTX wrappers

// cp.async: 16 bytes of global to shared memory; zeros, and nothing read, if not `inside`.
inline void copy_16_async(void* shared, const void* global, bool inside)
{
    emulation::check_address("copy_16_async", shared, true);
    emulation::check_address("copy_16_async", global, false);
    emulation::Copy copy{shared, {}, emulation::current->groups};
    if (inside) memcpy(&copy.data, global, 16);
    memset(shared, emulation::POISON, 16);
    if (char* view = emulation::seen_at(shared)) memset(view, emulation::POISON, 16);
    emulation::current->copies.push_back(copy);
}

inline void commit_copies() { emulation::current->groups++; }

template <int PENDING> void wait_for_copies()
{
    auto& copies = emulation::current->copies;
    size_t done = 0;
    for (; done < copies.size(); done++) {
        if (copies[done].group >= emulation::current->groups - PENDING) break;
        memcpy(copies[done].to, &copies[done].data, 16);
        emulation::current->unseen.push_back(copies[done]);
    }
    copies.erase(copies.begin(), copies.begin() + done);
}

// ldmatrix.sync.aligned.m8n8.x4.shared.b16
inline void load_matrices_x4(unsigned (&r)[4], const void* row, int line = __builtin_LINE())
{
    emulation::load_matrices<4>("load_matrices_x4", line, r, row);
}

inline void load_matrices_x2(unsigned (&r)[2], const void* row, int line = __builtin_LINE())
{
    emulation::load_matrices<2>("load_matrices_x2", line, r, row);
}

// mma.sync.aligned.row.col.m16n8k256.s32.b1.b1.s32.and.popc
inline void multiply_and_popc(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                              int line = __builtin_LINE())
{
    emulation::Product mine{a, b, c};
    emulation::together<emulation::Product, emulation::Product::perform>(
        "multiply_and_popc", line, emulation::ALL, true, mine);
}

// ------------------------------------------------------------------------------ arithmetic

#define MIN_MAX(T)                                        \
    inline T min(T a, T b) { return b < a ? b : a; }      \
    inline T max(T a, T b) { return a < b ? b : a; }
MIN_MAX(int)
MIN_MAX(unsigned)
MIN_MAX(long long)
MIN_MAX(unsigned long long)
#undef MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

inline unsigned __brev(unsigned x)
{
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (x >> i & 1) << (31 - i);
    return reversed;
}

inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return unsigned(((unsigned long long)high << 32 | low) << shift % 32 >> 32);
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return unsigned(((unsigned long long)high << 32 | low) >> shift % 32);
}

inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const unsigned long long bytes = (unsigned long long)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++)
        result |= unsigned(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return result;
}

inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++) c += (signed char)(a >> 8 * i) * (signed char)(b >> 8 * i);
    return c;
}

inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 4; i++) c += (a >> 8 * i & 0xff) * (b >> 8 * i & 0xff);
    return c;
}

// dp4a.u32.s32: unsigned bytes of x, signed bytes of w.
inline int multiply_bytes(unsigned x, unsigned w, int d)
{
    for (int i = 0; i < 4; i++) d += int(x >> 8 * i & 0xff) * (signed char)(w >> 8 * i);
    return d;
}

template <class T> T __ldg(const T* p) { return *p; }

inline int __float2int_rn(float x)
{
    if (isnan(x)) return 0;
    return x >= 0x1p31f ? 0x7fffffff : x < -0x1p31f ? -0x7fffffff - 1 : int(rintf(x));
}

inline float __int2float_rn(int x) { return float(x); }

inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

#include "wgmma_on_cpu.h"
