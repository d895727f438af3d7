//! Tokenizers and chat templates behind a small C ABI (declared for C++ in ../rust_abi.h).
//!
//! Every function catches panics and reports them as errors; no function keeps a pointer it was given after it returns.
//! Handles are immutable once made: any number of threads may use one at a time.

mod abi;
mod chat;
mod memory;
mod python;
mod spm;
mod tokenizer;
mod vocab;
