//! A tokenizer built from a plain vocabulary (what a GGUF file carries), without a detour through JSON.

use crate::spm::{Piece, SpmBpe};
use ahash::{AHashMap, AHashSet};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tokenizers::models::bpe::{BpeTrainer, BPE};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{Precompiled, Prepend, Replace, Sequence, NFC};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreSequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Result, Token,
    TokenizerImpl,
};

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    ByteBpe,
    SpmBpe,
    Unigram,
}

/// The types of tokens in a GGUF vocabulary.
#[derive(Clone, Copy, PartialEq)]
pub enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

pub struct Vocabulary<'a> {
    pub kind: Kind,
    pub tokens: Vec<&'a str>,
    pub types: Vec<TokenType>,
    pub scores: &'a [f32],
    pub merges: Vec<&'a str>,
    /// Split the text by each of these in turn; what does not match stays a part, too.
    pub patterns: Vec<&'a str>,
    pub charsmap: &'a [u8],
    pub unk: Option<u32>,
    pub ignore_merges: bool,
    pub nfc: bool,
    pub space_prefix: bool,
    pub squeeze_spaces: bool,
    /// Special tokens swallow the blanks after them, but for those named here.
    pub rstrip_special: bool,
    pub rstrip_not: Vec<&'a str>,
}

pub type VocabTokenizer =
    TokenizerImpl<VocabModel, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

enum Algorithm {
    Bpe(BPE),
    Spm(SpmBpe),
    Unigram { model: Unigram, unk: u32, bytes: Option<Vec<u32>> },
}

/// The algorithm over ordinary pieces, and the names of all tokens.
pub struct VocabModel {
    algorithm: Algorithm,
    names: Vec<Box<str>>,
    /// Tokens that text can only name as added tokens; the algorithm does not know them.
    reserved: AHashMap<Box<str>, u32>,
}

impl VocabModel {
    fn id(&self, token: &str) -> Option<u32> {
        self.reserved.get(token).copied().or_else(|| match &self.algorithm {
            Algorithm::Bpe(m) => m.token_to_id(token),
            Algorithm::Spm(m) => m.id(token),
            Algorithm::Unigram { model, .. } => model.token_to_id(token),
        })
    }

    pub fn name(&self, id: u32) -> Option<&str> {
        self.names.get(id as usize).map(|n| &**n)
    }

    pub fn size(&self) -> usize {
        self.names.len()
    }
}

fn with_bytes(tokens: Vec<Token>, unk: u32, bytes: &[u32]) -> Vec<Token> {
    let mut out = Vec::with_capacity(tokens.len());
    for token in tokens {
        if token.id != unk {
            out.push(token);
            continue;
        }
        for b in token.value.bytes() {
            out.push(Token::new(bytes[b as usize], String::new(), token.offsets));
        }
    }
    out
}

impl Model for VocabModel {
    type Trainer = BpeTrainer;

    fn tokenize(&self, sequence: &str) -> Result<Vec<Token>> {
        match &self.algorithm {
            Algorithm::Bpe(m) => m.tokenize(sequence),
            Algorithm::Spm(m) => {
                let mut ids = Vec::new();
                m.encode(sequence, &mut ids);
                Ok(ids.into_iter().map(|id| Token::new(id, String::new(), (0, sequence.len()))).collect())
            }
            Algorithm::Unigram { model, unk, bytes } => {
                let tokens = model.tokenize(sequence)?;
                Ok(match bytes {
                    Some(bytes) => with_bytes(tokens, *unk, bytes),
                    None => tokens,
                })
            }
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.name(id).map(str::to_owned)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.names.iter().enumerate().map(|(i, n)| (n.to_string(), i as u32)).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.names.len()
    }

    fn save(&self, _folder: &Path, _prefix: Option<&str>) -> Result<Vec<PathBuf>> {
        Err("a vocabulary is not saved".into())
    }

    fn get_trainer(&self) -> BpeTrainer {
        BpeTrainer::default()
    }
}

/// What a token of SentencePiece looks like inside normalized text.
fn escaped(text: &str) -> String {
    text.replace(' ', "\u{2581}")
}

/// Ids of the 256 byte tokens `<0x00>` to `<0xFF>`, if all are there.
fn byte_ids(v: &Vocabulary) -> Option<Vec<u32>> {
    let mut ids = vec![None; 256];
    for (i, name) in v.tokens.iter().enumerate() {
        if v.types[i] != TokenType::Byte {
            continue;
        }
        if let Some(b) = crate::tokenizer::byte_token(name) {
            ids[b as usize] = Some(i as u32);
        }
    }
    ids.into_iter().collect()
}

fn is_reserved(kind: TokenType) -> bool {
    matches!(kind, TokenType::Control | TokenType::Unknown)
}

fn byte_bpe(v: &Vocabulary) -> Result<Algorithm> {
    let mut ids: AHashMap<String, u32> = AHashMap::with_capacity(v.tokens.len());
    for (i, token) in v.tokens.iter().enumerate() {
        if !is_reserved(v.types[i]) {
            ids.insert((*token).to_owned(), i as u32);
        }
    }
    let mut joined = String::new();
    let mut merges = Vec::with_capacity(v.merges.len());
    for merge in &v.merges {
        // The pieces themselves hold no blank, but the first may begin with one in damaged files.
        let Some(at) = merge.char_indices().skip(1).find(|&(_, c)| c == ' ').map(|(at, _)| at) else {
            return Err(format!("merge \"{merge}\" is not two pieces with a blank between").into());
        };
        let (left, right) = (&merge[..at], &merge[at + 1..]);
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        // A merge that cannot give a token never happens.
        if ids.contains_key(left) && ids.contains_key(right) && ids.contains_key(&joined) {
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    let builder = BPE::builder().vocab_and_merges(ids, merges).cache_capacity(CACHE_ENTRIES);
    Ok(Algorithm::Bpe(builder.ignore_merges(v.ignore_merges).build()?))
}

/// Words whose tokens the byte-level model remembers, per thread that encodes.
const CACHE_ENTRIES: usize = 4096;

fn spm_bpe(v: &Vocabulary) -> Result<Algorithm> {
    let unk = v.unk.ok_or("the vocabulary names no unknown token")?;
    let mut pieces = AHashMap::with_capacity(v.tokens.len());
    for (i, token) in v.tokens.iter().enumerate() {
        if is_reserved(v.types[i]) || v.types[i] == TokenType::Byte {
            continue;
        }
        let piece = Piece { id: i as u32, score: v.scores[i], unused: v.types[i] == TokenType::Unused };
        pieces.insert(escaped(token).into_boxed_str(), piece);
    }
    Ok(Algorithm::Spm(SpmBpe::new(pieces, byte_ids(v), unk)))
}

fn unigram(v: &Vocabulary) -> Result<Algorithm> {
    let unk = v.unk.ok_or("the vocabulary names no unknown token")?;
    let mut pieces = Vec::with_capacity(v.tokens.len());
    for (i, token) in v.tokens.iter().enumerate() {
        let ordinary = matches!(v.types[i], TokenType::Normal | TokenType::UserDefined);
        // Normalized text holds no blank, so a name with one is never found in it.
        pieces.push(if ordinary { (escaped(token), v.scores[i] as f64) } else { (format!(" {i}"), 0.0) });
    }
    let model = Unigram::from(pieces, Some(unk as usize), false)?;
    Ok(Algorithm::Unigram { model, unk, bytes: byte_ids(v) })
}

fn normalizer(v: &Vocabulary) -> Result<Option<NormalizerWrapper>> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if v.nfc {
        steps.push(NFC.into());
    }
    if v.kind != Kind::ByteBpe {
        if !v.charsmap.is_empty() {
            steps.push(NormalizerWrapper::Precompiled(Precompiled::from(v.charsmap)?));
        }
        if v.squeeze_spaces {
            let regex = |r: &str| tokenizers::normalizers::replace::ReplacePattern::Regex(r.to_owned());
            steps.push(Replace::new(regex("\\A +| +\\z"), "")?.into());
            steps.push(Replace::new(regex(" {2,}"), " ")?.into());
        }
        if v.space_prefix {
            steps.push(Prepend::new("\u{2581}".to_owned()).into());
        }
        steps.push(Replace::new(" ", "\u{2581}")?.into());
    }
    Ok(if steps.is_empty() { None } else { Some(Sequence::new(steps).into()) })
}

fn pre_tokenizer(v: &Vocabulary) -> Result<Option<PreTokenizerWrapper>> {
    if v.kind != Kind::ByteBpe {
        return Ok(None);
    }
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for pattern in &v.patterns {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into());
    }
    steps.push(ByteLevel::new(false, true, false).into());
    Ok(Some(PreSequence::new(steps).into()))
}

fn added_tokens(v: &Vocabulary) -> Vec<AddedToken> {
    let mut added = Vec::new();
    let mut seen = AHashSet::new();
    for (i, token) in v.tokens.iter().enumerate() {
        let special = is_reserved(v.types[i]);
        if token.is_empty() || !(special || v.types[i] == TokenType::UserDefined) || !seen.insert(*token) {
            continue;
        }
        let rstrip = special && v.rstrip_special && !v.rstrip_not.contains(token);
        // User defined pieces are looked for in normalized text where normalizing does not depend on the place.
        let normalized = !special && v.kind == Kind::SpmBpe && !v.space_prefix;
        added.push(AddedToken::from(*token, special).normalized(normalized).rstrip(rstrip));
    }
    added
}

pub fn build(v: &Vocabulary) -> Result<VocabTokenizer> {
    let algorithm = match v.kind {
        Kind::ByteBpe => byte_bpe(v)?,
        Kind::SpmBpe => spm_bpe(v)?,
        Kind::Unigram => unigram(v)?,
    };
    let mut reserved = AHashMap::new();
    for (i, token) in v.tokens.iter().enumerate() {
        if is_reserved(v.types[i]) || v.types[i] == TokenType::UserDefined {
            reserved.entry((*token).into()).or_insert(i as u32);
        }
    }
    let names = v.tokens.iter().map(|t| (*t).into()).collect();
    let mut tokenizer = VocabTokenizer::new(VocabModel { algorithm, names, reserved });
    tokenizer.with_normalizer(normalizer(v)?)?;
    tokenizer.with_pre_tokenizer(pre_tokenizer(v)?);
    tokenizer.add_tokens(added_tokens(v))?;
    Ok(tokenizer)
}
