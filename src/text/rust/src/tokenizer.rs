//! One tokenizer, from tokenizer.json or from a plain vocabulary.

use crate::memory;
use crate::vocab::{self, VocabTokenizer, Vocabulary};
use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::tokenizer::{AddedVocabulary, OffsetReferential, OffsetType};
use tokenizers::{
    AddedToken, DecoderWrapper, Encoding, Model, Normalizer, PostProcessor, PreTokenizer, Result, Token, TokenizerImpl,
};

enum Inner {
    Json(Box<tokenizers::Tokenizer>),
    Vocab(Box<VocabTokenizer>),
}

/// How token names map to bytes.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    /// One printable character stands for each byte.
    ByteLevel,
    /// U+2581 stands for a blank, `<0xAB>` for a byte.
    SentencePiece,
    Verbatim,
}

pub struct Tokenizer {
    inner: Inner,
    /// The added tokens, told to leave special ones alone.
    plain: AddedVocabulary,
    spelling: Spelling,
    /// The first token's leading blank stands for the start of the text, not for a blank.
    pub strips_leading_space: bool,
    pub prefix: Vec<u32>,
    pub suffix: Vec<u32>,
    pub size: usize,
    pub memory_bytes: usize,
    /// Bytes of a text that are tokenized together; None: all.
    pub window: Option<usize>,
}

/// `<0x41>` as 0x41.
pub fn byte_token(name: &str) -> Option<u8> {
    let hex = name.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

/// The byte that a character of the byte-level alphabet stands for: printable Latin-1 for itself, the others in order
/// from U+0100.
fn byte_of(c: char) -> Option<u8> {
    let code = c as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Bytes of a long text that are looked at together, where words can be found piece by piece. The library takes 110
/// bytes and more for each.
const WINDOW: usize = 16 << 10;

/// A tokenizer of either kind at work.
struct Encoder<'a, M, N, PT, PP, D> {
    t: &'a TokenizerImpl<M, N, PT, PP, D>,
    added: &'a AddedVocabulary,
    mark: Option<char>,
}

impl<M, N, PT, PP, D> Encoder<'_, M, N, PT, PP, D>
where
    M: Model,
    N: Normalizer,
    PT: PreTokenizer,
    PP: PostProcessor,
    D: tokenizers::Decoder,
{
    /// The ids of `text`'s beginning, and how many bytes that is: all of it, or the words that begin before `most`
    /// bytes. What follows is looked at, too: at least as many bytes again, so that no word here would be another with
    /// more text.
    fn beginning(&self, text: &str, most: usize, ids: &mut Vec<u32>) -> Result<usize> {
        let mut parts = self.added.extract_and_normalize(self.t.get_normalizer(), text);
        if let Some(mark) = self.mark {
            parts.normalize(|part| part.replace(mark, ""))?;
        }
        if let Some(pre) = self.t.get_pre_tokenizer() {
            pre.pre_tokenize(&mut parts)?;
        }
        for (part, offsets, tokens) in parts.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            if offsets.0 >= most {
                return Ok(offsets.0);
            }
            match tokens {
                Some(tokens) => ids.extend(tokens.iter().map(|t| t.id)),
                None => ids.extend(self.t.get_model().tokenize(part)?.iter().map(|t| t.id)),
            }
        }
        Ok(text.len())
    }

    /// `window`: words are found from the left, each by itself, so that a long text can be taken in pieces of this size.
    fn all(&self, text: &str, window: Option<usize>) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut rest = text;
        while let Some(window) = window.filter(|w| rest.len() > *w) {
            let end = (0..=window).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(0);
            let before = ids.len();
            let taken = self.beginning(&rest[..end], window / 2, &mut ids)?;
            if taken == end || taken == 0 {
                // One word longer than half a window.
                ids.truncate(before);
                break;
            }
            rest = &rest[taken..];
        }
        self.beginning(rest, usize::MAX, &mut ids)?;
        Ok(ids)
    }
}

/// Whether a step of a pre-tokenizer splits, and does so from the left, by nothing that lies before a word.
enum Step {
    None,
    /// Single characters.
    Characters,
    Words,
    Other,
}

fn step_of(step: &Value) -> Step {
    match step["type"].as_str() {
        Some("ByteLevel") if step["add_prefix_space"] == true => Step::Other,
        Some("ByteLevel") if step["use_regex"] == false => Step::None,
        Some("ByteLevel") => Step::Words,
        Some("Digits") if step["individual_digits"] == true => Step::Characters,
        Some("Split") => match step["pattern"]["Regex"].as_str() {
            Some("\\p{N}") => Step::Characters,
            Some(pattern) if !looks_back(pattern) => Step::Words,
            _ => Step::Other,
        },
        _ => Step::Other,
    }
}

fn looks_back(pattern: &str) -> bool {
    let anchored = pattern.char_indices().any(|(at, c)| c == '^' && !pattern[..at].ends_with('['));
    anchored || ["(?<", "\\b", "\\B", "\\A", "\\G", "\\K"].iter().any(|look| pattern.contains(look))
}

/// The window of a tokenizer with these parts; None: its texts must be taken whole. Words must be the last that is
/// split: inside another word they would depend on where that begins.
fn window_for(normalizer: &Value, pre_tokenizer: &Value) -> Option<usize> {
    let nfc = serde_json::json!({"type": "NFC"});
    let plain = normalizer.is_null() || *normalizer == nfc || normalizer["normalizers"] == serde_json::json!([nfc]);
    let steps = match pre_tokenizer["pretokenizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(pre_tokenizer),
    };
    let mut words = 0;
    for step in steps {
        match step_of(step) {
            Step::None => {}
            Step::Characters if words == 0 => {}
            Step::Words if words == 0 => words = 1,
            _ => return None,
        }
    }
    (plain && words == 1).then_some(WINDOW)
}

/// Known normalizers put three bytes for one.
const MOST_GROWTH: f64 = 64.0;

/// How many times as long as a text these replacements can make it.
fn growth_of(normalizer: &Value) -> f64 {
    if let Some(steps) = normalizer["normalizers"].as_array() {
        return steps.iter().map(growth_of).product();
    }
    let Some(content) = normalizer["content"].as_str() else { return 1.0 };
    let found = normalizer["pattern"]["String"].as_str().map_or(1, str::len).max(1);
    (content.len() as f64 / found as f64).max(1.0)
}

/// As the parts are written into tokenizer.json; null for one that is absent.
fn json_of<T: serde::Serialize>(part: &T) -> Value {
    serde_json::to_value(part).unwrap_or_else(|_| Value::from("cannot be written"))
}

fn spelling_of(decoder: &DecoderWrapper) -> (Spelling, bool) {
    match decoder {
        DecoderWrapper::ByteLevel(_) => (Spelling::ByteLevel, false),
        DecoderWrapper::Metaspace(m) => {
            (Spelling::SentencePiece, m.get_prepend_scheme() != PrependScheme::Never)
        }
        DecoderWrapper::Replace(_) | DecoderWrapper::ByteFallback(_) => (Spelling::SentencePiece, false),
        DecoderWrapper::Strip(s) => (Spelling::Verbatim, s.content == ' ' && s.start > 0),
        DecoderWrapper::Sequence(s) => s.get_decoders().iter().map(spelling_of).fold(
            (Spelling::Verbatim, false),
            |(spelling, strips), (next, next_strips)| {
                (if spelling == Spelling::Verbatim { next } else { spelling }, strips || next_strips)
            },
        ),
        _ => (Spelling::Verbatim, false),
    }
}

impl Tokenizer {
    /// `extra` are added tokens with wished-for ids that the file itself may lack.
    pub fn from_json(json: &[u8], extra: Vec<AddedToken>) -> Result<Self> {
        let before = memory::live_bytes();
        let mut t = tokenizers::Tokenizer::from_bytes(json)?;
        t.with_truncation(None)?;
        t.with_padding(None);
        t.set_encode_special_tokens(false);
        if !extra.is_empty() {
            t.add_tokens(extra)?;
        }
        if matches!(t.get_model(), ModelWrapper::BPE(bpe) if bpe.dropout.is_some()) {
            // Left over from training: the same text must give the same tokens.
            let mut model = t.get_model().clone();
            if let ModelWrapper::BPE(bpe) = &mut model {
                bpe.dropout = None;
            }
            t.with_model(model);
        }
        let (spelling, strips) = t.get_decoder().map_or((Spelling::Verbatim, false), spelling_of);
        let (prefix, suffix) = surroundings(&t)?;
        let largest = t.get_added_tokens_decoder().keys().max().map_or(0, |id| *id as usize + 1);
        let size = t.get_vocab_size(true).max(largest);
        Self::finish(Inner::Json(t.into()), spelling, strips, prefix, suffix, size, before)
    }

    pub fn from_vocabulary(v: &Vocabulary) -> Result<Self> {
        let before = memory::live_bytes();
        let t = vocab::build(v)?;
        let spelling = match v.kind {
            vocab::Kind::ByteBpe => Spelling::ByteLevel,
            _ => Spelling::SentencePiece,
        };
        let size = t.get_model().size();
        Self::finish(Inner::Vocab(t.into()), spelling, v.space_prefix, vec![], vec![], size, before)
    }

    fn finish(
        inner: Inner,
        spelling: Spelling,
        strips_leading_space: bool,
        prefix: Vec<u32>,
        suffix: Vec<u32>,
        size: usize,
        before: usize,
    ) -> Result<Self> {
        let mut plain = match &inner {
            Inner::Json(t) => t.get_added_vocabulary().clone(),
            Inner::Vocab(t) => t.get_added_vocabulary().clone(),
        };
        plain.set_encode_special_tokens(true);
        let (normalizer, pre_tokenizer) = match &inner {
            Inner::Json(t) => (json_of(&t.get_normalizer()), json_of(&t.get_pre_tokenizer())),
            Inner::Vocab(t) => (json_of(&t.get_normalizer()), json_of(&t.get_pre_tokenizer())),
        };
        let growth = growth_of(&normalizer);
        if growth > MOST_GROWTH {
            return Err(format!("its normalizer makes texts {growth:.0} times as long; at most {MOST_GROWTH} is taken").into());
        }
        let window = window_for(&normalizer, &pre_tokenizer);
        drop((normalizer, pre_tokenizer));
        let memory_bytes = memory::live_bytes().saturating_sub(before);
        Ok(Self { inner, plain, spelling, strips_leading_space, prefix, suffix, size, memory_bytes, window })
    }

    fn added(&self) -> &AddedVocabulary {
        match &self.inner {
            Inner::Json(t) => t.get_added_vocabulary(),
            Inner::Vocab(t) => t.get_added_vocabulary(),
        }
    }

    /// The tokens of `text`, nothing put before or after. `mark` is a character that hides special-token text from
    /// being taken for a token; it is taken out before anything else looks at the text.
    pub fn encode(&self, text: &str, parse_special: bool, mark: Option<char>, window: Option<usize>) -> Result<Vec<u32>> {
        let window = self.window.map(|w| window.unwrap_or(w));
        let added = if parse_special { self.added() } else { &self.plain };
        match &self.inner {
            Inner::Json(t) => Encoder { t, added, mark }.all(text, window),
            Inner::Vocab(t) => Encoder { t, added, mark }.all(text, window),
        }
    }

    pub fn id(&self, name: &str) -> Option<u32> {
        match &self.inner {
            Inner::Json(t) => t.token_to_id(name),
            Inner::Vocab(t) => t.token_to_id(name),
        }
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.added().get_added_tokens_decoder().get(&id).is_some_and(|t| t.special)
    }

    fn name(&self, id: u32) -> Option<String> {
        match &self.inner {
            Inner::Json(t) => t.id_to_token(id),
            Inner::Vocab(t) => t.get_model().name(id).map(str::to_owned),
        }
    }

    /// The bytes that a token stands for; none for an id that is no token.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        if let Some(token) = self.added().get_added_tokens_decoder().get(&id) {
            return self.added_bytes(&token.content);
        }
        let Some(name) = self.name(id) else { return Vec::new() };
        match self.spelling {
            Spelling::Verbatim => name.into_bytes(),
            Spelling::ByteLevel => {
                let bytes: Option<Vec<u8>> = name.chars().map(byte_of).collect();
                bytes.unwrap_or_else(|| name.into_bytes())
            }
            Spelling::SentencePiece => match byte_token(&name) {
                Some(b) => vec![b],
                None => name.replace('\u{2581}', " ").into_bytes(),
            },
        }
    }

    fn added_bytes(&self, content: &str) -> Vec<u8> {
        match self.spelling {
            Spelling::SentencePiece => content.replace('\u{2581}', " ").into_bytes(),
            _ => content.as_bytes().to_vec(),
        }
    }

    /// The text of every special token.
    pub fn special_texts(&self) -> Vec<String> {
        let tokens = self.added().get_added_tokens_decoder();
        tokens.values().filter(|t| t.special && !t.content.is_empty()).map(|t| t.content.clone()).collect()
    }
}

/// Finds these texts, the leftmost first, the longest among those.
pub fn matcher(texts: &[String]) -> Result<AhoCorasick> {
    Ok(AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts)?)
}

/// What the post-processor puts before and after a text.
fn surroundings(t: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>)> {
    const TEXT: u32 = u32::MAX;
    let text = Encoding::from_tokens(vec![Token::new(TEXT, String::from("x"), (0, 1))], 0);
    let done = t.post_process(text, None, true)?;
    let ids = done.get_ids();
    let at = ids.iter().position(|id| *id == TEXT).ok_or("the post-processor drops text")?;
    Ok((ids[..at].to_vec(), ids[at + 1..].to_vec()))
}
