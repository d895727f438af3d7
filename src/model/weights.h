// The weights of a model as the forward pass names them: which matrix (or rows of one) plays each role, and the small
// vectors themselves.
//
// Matrices are reached through the byte door (weight_source.h) by id; a fused matrix (q, k and v in one; gate and up in
// one; all experts of a layer) is named by row ranges of one id. Vectors (norms, biases, sinks) are FP32, owned here.
// Thread role: const after loading. Ownership: vectors are owned; matrices belong to the WeightSource.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/weight_source.h"

namespace stoke::model {

// One projection of every expert: expert e is rows [first + e * step, first + e * step + rows) of the matrix.
struct ExpertSlices {
  MatrixId id;
  int64_t first = 0;
  int64_t step = 0;
  int64_t rows = 0;
  bool valid() const { return id.valid(); }
  MatrixSlice expert(int64_t e) const { return {id, {first + e * step, first + e * step + rows}}; }
};

// An absent vector is empty.
using Vector = std::vector<float>;

struct DenseFfnWeights {
  MatrixSlice gate, up;  // (ffn, dim)
  MatrixSlice down;      // (dim, ffn)
  Vector gate_bias, up_bias, down_bias;
};

struct MoeWeights {
  MatrixSlice router;         // (experts, dim)
  Vector router_bias;         // (experts)
  ExpertSlices gate, up;      // (expert ffn, dim) each
  ExpertSlices down;          // (dim, expert ffn) each
  Vector gate_bias, up_bias;  // (experts, expert ffn)
  Vector down_bias;           // (experts, dim)
  DenseFfnWeights shared;     // the shared expert, where the family has one
  MatrixSlice shared_gate;    // (1, dim): the shared expert counts sigmoid(this . x); absent: fully
};

// A layer whose up and down are records of a neuron store (tensor/neuron_record.h), reached by the sparse FFN alone.
// Experts of a layer lie one after another: expert e is neurons [e * neurons, (e + 1) * neurons) of the table.
struct SparseFfnWeights {
  int32_t table = -1;   // which record table of the store; -1: this layer has none
  int64_t neurons = 0;  // of the layer, or of one expert
  MatrixSlice gate;     // dense layers, layout kSplit: (neurons, dim)
  ExpertSlices gates;   // expert layers: the same of every expert
  // (experts, dim), powers of two; empty: all are 1. Records hold Down less these: out[d] = factors[d] * the sum over
  // neurons, one exact product at the end.
  Vector factors;
  MatrixSlice scales;  // records of codes: (all neurons / 32, dim) F16; row b is of neurons [32 b, 32 b + 32)
  MatrixSlice mins;    // the same, where the codes' type has minima
  bool valid() const { return table >= 0; }
};

struct LayerWeights {
  Vector attn_norm, attn_post_norm;  // (dim)
  Vector ffn_norm, ffn_post_norm;    // (dim)
  MatrixSlice q, k, v;               // (q_dim | kv_dim | kv_dim, dim)
  MatrixSlice o;                     // (dim, q_dim)
  Vector q_bias, k_bias, v_bias, o_bias;
  Vector q_norm, k_norm;    // (head_dim): each head by itself; (q_dim | kv_dim): over the full width
  Vector sinks;             // (heads)
  DenseFfnWeights ffn;      // dense layers
  MoeWeights moe;           // expert layers
  SparseFfnWeights sparse;  // layers of a neuron store; then ffn and the experts of moe are empty
};

struct Weights {
  MatrixId embedding;  // (vocab, dim)
  MatrixSlice head;    // (vocab, dim); the embedding's own matrix where they are tied
  Vector output_norm;  // (dim)
  std::vector<LayerWeights> layers;
};

}  // namespace stoke::model
