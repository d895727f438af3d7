// The shape of a small model that streams, for tests. Thread role: any. Ownership: values.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "formats/synth.h"

namespace stoke {

// Matrices of several row blocks.
inline formats::SynthShape six_layers(const std::string& arch) {
  auto shape = formats::free_shape(arch);
  EXPECT_TRUE(shape.ok());
  if (!shape.ok()) return {};
  shape->layers = 6;
  shape->dim = 512;
  shape->ffn = 1536;
  shape->heads = 8;
  shape->vocab = 2048;
  return *shape;
}

}  // namespace stoke
