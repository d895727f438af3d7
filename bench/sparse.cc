// What the sparse FFN's kernels reach. `decode`: active neurons' records, scattered over more memory than the caches
// hold, read by gather_dot and axpy_rows, beside the rate of a plain read of the same bytes. `prompt`: up products of a
// cluster and sums of its widened down rows, as multiply-adds that were needed and as those a dense product would make.
// Times are of the processor. Prints JSON. usage: bench_sparse [threads] [instruction set] [type] [clusters]
#include "kernels/sparse.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <vector>

#include "kernels/quantize.h"
#include "sys/memory.h"
#include "sys/thread_pool.h"
#include "tensor/record_table.h"

namespace stoke {
namespace {

constexpr int64_t kDim = 4096;
constexpr int64_t kClusters = 1792;  // of 32 layers of 14336: two gigabytes of Q4_0 records
constexpr double kActive = 0.12;
constexpr int kRuns = 7;

// Processor time, all threads together: a machine that others use, too, disturbs it least.
double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

struct Bench {
  Bench(const kernels::Kernels& table, int thread_count, DType t, int64_t clusters)
      : k(table),
        threads(thread_count),
        type(t),
        neurons(clusters * kClusterNeurons),
        record(layout_record(RecordLayout::kSplit, DownEncoding::kRequantized, kDim, t, t, t)),
        memory(std::move(sys::Memory::map(static_cast<size_t>(neurons) * record.record_bytes)).value()) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    std::vector<float> row(kDim);
    constexpr size_t kDistinct = 64;
    const size_t bytes = record.record_bytes;
    for (size_t i = 0; i < kDistinct; ++i) {
      for (const size_t at : {record.up_offset, record.down_offset}) {
        for (float& v : row) v = normal(rng);
        kernels::quantize_row(t, row.data(), memory.data() + i * bytes + at, kDim);
      }
    }
    for (size_t i = kDistinct; i < static_cast<size_t>(neurons); ++i) {
      std::memcpy(memory.data() + i * bytes, memory.data() + i % kDistinct * bytes, bytes);
    }
    scratch = std::move(sys::Memory::map(kernels::scratch_bytes() * static_cast<size_t>(thread_count))).value();
    x.resize(kDim * 512);
    for (float& v : x) v = normal(rng);
    acts = std::move(sys::Memory::map(kernels::act_bytes(512, kDim))).value();
    active.resize(static_cast<size_t>(neurons / kClusterNeurons));
    for (size_t c = 0; c < active.size(); ++c) {
      for (int i = 0; i < kClusterNeurons; ++i) {
        if (static_cast<double>(rng() % 10000) < kActive * 10000) active[c].push_back(static_cast<uint8_t>(i));
      }
    }
  }
  kernels::ActView view(int64_t tokens) const {
    kernels::ActView v = kernels::act_carve(acts.data(), tokens, kDim);
    v.f = x.data();
    v.f_stride = kDim;
    k.quantize_acts(v, 0, tokens);
    return v;
  }
  const std::byte* at(size_t cluster, uint8_t i) const {
    return memory.data() + (cluster * kClusterNeurons + i) * record.record_bytes;
  }
  void* worker_scratch(int worker) const {
    return scratch.data() + kernels::scratch_bytes() * static_cast<size_t>(worker);
  }

  const kernels::Kernels& k;
  mutable sys::ThreadPool threads;
  DType type;
  int64_t neurons;
  NeuronRecord record;
  sys::Memory memory, scratch, acts;
  std::vector<float> x;
  std::vector<std::vector<uint8_t>> active;  // by cluster
};

// GB/s of reading every line of memory in order.
double plain_rate(const Bench& b) {
  std::vector<double> seconds;
  std::vector<uint64_t> sums(64);
  for (int run = 0; run < kRuns; ++run) {
    const double start = cpu_seconds();
    b.threads.parallel_for(b.neurons, kClusterNeurons, [&](int64_t begin, int64_t end, int worker) {
      const auto* words =
          reinterpret_cast<const uint64_t*>(b.at(0, 0) + static_cast<size_t>(begin) * b.record.record_bytes);
      const size_t count = static_cast<size_t>(end - begin) * b.record.record_bytes / 8;
      uint64_t sum[8] = {};
      for (size_t i = 0; i + 8 <= count; i += 8) {
        for (size_t j = 0; j < 8; ++j) sum[j] += words[i + j];
      }
      for (const uint64_t s : sum) sums[static_cast<size_t>(worker)] += s;
    });
    seconds.push_back((cpu_seconds() - start) / b.threads.size());
  }
  if (sums[0] == 1) fmt::print(stderr, "a coincidence\n");
  return static_cast<double>(b.neurons) * static_cast<double>(b.record.record_bytes) / median(seconds) * 1e-9;
}

// GB/s of records read by both kernels, or by one of them.
double decode_rate(const Bench& b, bool up, bool down) {
  const kernels::ActView x = b.view(1);
  std::vector<double> seconds;
  std::vector<std::vector<float>> acc(static_cast<size_t>(b.threads.size()), std::vector<float>(kDim));
  double bytes = 0;
  for (const auto& list : b.active) {
    bytes += static_cast<double>(list.size()) * ((up ? static_cast<double>(row_bytes(b.type, kDim)) : 0) +
                                                 (down ? static_cast<double>(b.record.down_bytes) : 0));
  }
  for (int run = 0; run < kRuns; ++run) {
    const double start = cpu_seconds();
    b.threads.parallel_for(static_cast<int64_t>(b.active.size()), 1, [&](int64_t begin, int64_t end, int worker) {
      const std::byte* rows[kClusterNeurons];
      float h[kClusterNeurons] = {};
      for (int64_t c = begin; c < end; ++c) {
        const auto& list = b.active[static_cast<size_t>(c)];
        const auto count = static_cast<int64_t>(list.size());
        // Others in every run: a large cache would hold the last run's.
        const auto turn = static_cast<uint8_t>(37 * run);
        for (size_t i = 0; i < list.size(); ++i) {
          rows[i] = b.at(static_cast<size_t>(c), static_cast<uint8_t>(list[i] + turn));
        }
        if (up) b.k.sparse->gather_dot({b.type, rows, count, x, h, b.worker_scratch(worker)});
        for (size_t i = 0; i < list.size(); ++i) rows[i] += b.record.down_offset;
        std::vector<float>& sum = acc[static_cast<size_t>(worker)];
        if (down) {
          b.k.sparse->axpy_rows({.type = b.type, .rows = rows, .count = count, .dim = kDim}, h, sum.data(),
                                b.worker_scratch(worker));
        }
      }
    });
    seconds.push_back((cpu_seconds() - start) / b.threads.size());
  }
  return bytes / median(seconds) * 1e-9;
}

// Seconds of a cluster's down sums for `tokens` tokens on one thread, with `columns` columns widened at a time.
double prompt_seconds(const Bench& b, int64_t tokens, int64_t columns) {
  std::mt19937 rng(3);
  std::vector<std::vector<uint8_t>> index(static_cast<size_t>(tokens));
  std::vector<float> h(kClusterNeurons, 0.5f);
  for (auto& list : index) {
    for (int i = 0; i < kClusterNeurons; ++i) {
      if (static_cast<double>(rng() % 10000) < kActive * 10000) list.push_back(static_cast<uint8_t>(i));
    }
  }
  std::vector<double> seconds;
  std::vector<float> sums(static_cast<size_t>(tokens * columns));
  auto* wide = static_cast<float*>(b.worker_scratch(0));
  for (int run = 0; run < kRuns; ++run) {
    const std::byte* rows[kClusterNeurons];
    for (int i = 0; i < kClusterNeurons; ++i) {
      rows[i] = b.at(static_cast<size_t>(run) % b.active.size(), static_cast<uint8_t>(i)) + b.record.down_offset;
    }
    const double start = cpu_seconds();
    for (int64_t first = 0; first < kDim; first += columns) {
      b.k.sparse->widen_rows({.type = b.type, .rows = rows, .count = kClusterNeurons, .dim = kDim}, first, columns,
                             wide, columns + 16);
      for (int64_t t = 0; t < tokens; ++t) {
        const auto& list = index[static_cast<size_t>(t)];
        b.k.sparse->add_widened(wide, columns + 16, columns, list.data(), h.data(), static_cast<int64_t>(list.size()),
                                sums.data() + t * columns);
      }
    }
    seconds.push_back(cpu_seconds() - start);
  }
  return median(seconds);
}

int main_of(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 2;
  const kernels::Kernels* k = argc > 2 ? kernels::find(argv[2]) : &kernels::best();
  const DTypeInfo* type = argc > 3 ? find_dtype(argv[3]) : &info(DType::kQ4_0);
  if (k == nullptr || type == nullptr) {
    fmt::print(stderr, "this machine does not run {}, or there is no such element type\n", argv[2]);
    return 1;
  }
  const Bench b(*k, threads, type->type, argc > 4 ? std::max(1, std::atoi(argv[4])) : kClusters);
  const double plain = plain_rate(b);
  fmt::print("{{\"isa\": \"{}\", \"threads\": {}, \"type\": \"{}\", \"plain_gb_per_s\": {:.1f},\n", k->isa, threads,
             type->name, plain);
  const double up = decode_rate(b, true, false), down = decode_rate(b, false, true), both = decode_rate(b, true, true);
  fmt::print(
      " \"decode\": {{\"gather_dot_gb_per_s\": {:.1f}, \"axpy_rows_gb_per_s\": {:.1f}, \"both_gb_per_s\": {:.1f}, "
      "\"share\": {:.2f}}},\n \"prompt\": [",
      up, down, both, both / plain);
  const char* separator = "\n";
  for (const int64_t tokens : {16, 128, 512}) {
    for (const int64_t columns : {64, 128, 256}) {
      const double s = prompt_seconds(b, tokens, columns);
      const double dense = 2.0 * static_cast<double>(tokens * kClusterNeurons * kDim) / s * 1e-9;
      fmt::print(
          "{}  {{\"tokens\": {}, \"columns\": {}, \"us\": {:.0f}, \"gflops\": {:.1f}, \"dense_gflops\": {:.1f}}}",
          separator, tokens, columns, s * 1e6, dense * kActive, dense);
      separator = ",\n";
    }
  }
  fmt::print("\n]}}\n");
  return 0;
}

}  // namespace
}  // namespace stoke

int main(int argc, char** argv) { return stoke::main_of(argc, argv); }
