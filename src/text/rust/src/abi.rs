//! The C ABI; ../rust_abi.h declares the same for C++.

use crate::chat::{Chat, Request};
use crate::memory;
use crate::tokenizer::Tokenizer;
use crate::vocab::{Kind, TokenType, Vocabulary};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Once};
use tokenizers::AddedToken;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slice {
    data: *const u8,
    size: usize,
}

/// Bytes that the caller gives back with stoke_text_bytes_free.
#[repr(C)]
pub struct Bytes {
    data: *mut u8,
    size: usize,
    capacity: usize,
}

/// Token ids that the caller gives back with stoke_text_ids_free.
#[repr(C)]
pub struct Ids {
    data: *mut u32,
    size: usize,
    capacity: usize,
}

#[repr(C)]
pub struct VocabularyAbi {
    tokens: *const Slice,
    types: *const i32,
    scores: *const f32,
    token_count: usize,
    merges: *const Slice,
    merge_count: usize,
    patterns: *const Slice,
    pattern_count: usize,
    rstrip_not: *const Slice,
    rstrip_not_count: usize,
    charsmap: Slice,
    unk: i32,
    kind: u8,
    ignore_merges: u8,
    nfc: u8,
    space_prefix: u8,
    squeeze_spaces: u8,
    rstrip_special: u8,
}

#[repr(C)]
pub struct AddedAbi {
    content: Slice,
    special: u8,
    normalized: u8,
    lstrip: u8,
    rstrip: u8,
    single_word: u8,
}

#[repr(C)]
pub struct Info {
    vocab_size: usize,
    memory_bytes: usize,
    window: usize,
    strips_leading_space: u8,
}

#[repr(C)]
pub struct RequestAbi {
    messages: Slice,
    tools: Slice,
    variables: Slice,
    now: i64,
    add_generation_prompt: u8,
}

type Outcome = Result<(), String>;

impl Slice {
    /// Requires: valid for the call.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        array(self.data, self.size)
    }

    unsafe fn text<'a>(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()).map_err(|e| format!("not UTF-8: {e}"))
    }

    unsafe fn lossy(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

unsafe fn array<'a, T>(data: *const T, count: usize) -> &'a [T] {
    if count == 0 || data.is_null() {
        return &[];
    }
    std::slice::from_raw_parts(data, count)
}

impl From<Vec<u8>> for Bytes {
    fn from(vec: Vec<u8>) -> Self {
        let mut vec = std::mem::ManuallyDrop::new(vec);
        Self { data: vec.as_mut_ptr(), size: vec.len(), capacity: vec.capacity() }
    }
}

impl From<Vec<u32>> for Ids {
    fn from(vec: Vec<u32>) -> Self {
        let mut vec = std::mem::ManuallyDrop::new(vec);
        Self { data: vec.as_mut_ptr(), size: vec.len(), capacity: vec.capacity() }
    }
}

static QUIET: Once = Once::new();

/// Runs `work`; a failure's text goes into `error` and gives false.
unsafe fn edge(error: *mut Bytes, work: impl FnOnce() -> Outcome) -> bool {
    // A library does not print; the panic comes back as an error.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(format!("the text library failed: {}", text.replace('\n', " ")))
    });
    match outcome {
        Ok(()) => true,
        Err(text) => {
            *error = text.replace('\n', " ").into_bytes().into();
            false
        }
    }
}

fn text_of(error: tokenizers::Error) -> String {
    error.to_string()
}

unsafe fn texts<'a>(data: *const Slice, count: usize, what: &str) -> Result<Vec<&'a str>, String> {
    let slices = array(data, count).iter().enumerate();
    slices.map(|(i, s)| s.text().map_err(|e| format!("{what} {i}: {e}"))).collect()
}

fn token_type(number: i32) -> TokenType {
    match number {
        2 => TokenType::Unknown,
        3 => TokenType::Control,
        4 => TokenType::UserDefined,
        5 => TokenType::Unused,
        6 => TokenType::Byte,
        _ => TokenType::Normal,
    }
}

unsafe fn vocabulary<'a>(abi: &VocabularyAbi) -> Result<Vocabulary<'a>, String> {
    Ok(Vocabulary {
        kind: match abi.kind {
            0 => Kind::ByteBpe,
            1 => Kind::SpmBpe,
            _ => Kind::Unigram,
        },
        tokens: texts(abi.tokens, abi.token_count, "token")?,
        types: array(abi.types, abi.token_count).iter().map(|t| token_type(*t)).collect(),
        scores: array(abi.scores, abi.token_count),
        merges: texts(abi.merges, abi.merge_count, "merge")?,
        patterns: texts(abi.patterns, abi.pattern_count, "pattern")?,
        rstrip_not: texts(abi.rstrip_not, abi.rstrip_not_count, "token")?,
        charsmap: abi.charsmap.bytes(),
        unk: u32::try_from(abi.unk).ok().filter(|u| (*u as usize) < abi.token_count),
        ignore_merges: abi.ignore_merges != 0,
        nfc: abi.nfc != 0,
        space_prefix: abi.space_prefix != 0,
        squeeze_spaces: abi.squeeze_spaces != 0,
        rstrip_special: abi.rstrip_special != 0,
    })
}

#[no_mangle]
pub unsafe extern "C" fn stoke_text_from_vocabulary(
    abi: *const VocabularyAbi,
    out: *mut *mut Tokenizer,
    error: *mut Bytes,
) -> bool {
    edge(error, || {
        let tokenizer = Tokenizer::from_vocabulary(&vocabulary(&*abi)?).map_err(text_of)?;
        *out = Box::into_raw(Box::new(tokenizer));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn stoke_text_from_json(
    json: Slice,
    added: *const AddedAbi,
    added_count: usize,
    out: *mut *mut Tokenizer,
    error: *mut Bytes,
) -> bool {
    edge(error, || {
        let mut extra = Vec::new();
        for token in array(added, added_count) {
            let made = AddedToken::from(token.content.text()?, token.special != 0)
                .normalized(token.normalized != 0)
                .lstrip(token.lstrip != 0)
                .rstrip(token.rstrip != 0)
                .single_word(token.single_word != 0);
            extra.push(made);
        }
        let tokenizer = Tokenizer::from_json(json.bytes(), extra).map_err(text_of)?;
        *out = Box::into_raw(Box::new(tokenizer));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn stoke_text_free(tokenizer: *mut Tokenizer) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(tokenizer))));
}

#[no_mangle]
pub unsafe extern "C" fn stoke_text_info(tokenizer: *const Tokenizer, out: *mut Info) {
    let t = &*tokenizer;
    *out = Info {
        vocab_size: t.size,
        memory_bytes: t.memory_bytes,
        window: t.window.unwrap_or(0),
        strips_leading_space: t.strips_leading_space as u8,
    };
}

/// The ids that surround a text when the file asks for it.
#[no_mangle]
pub unsafe extern "C" fn stoke_text_surroundings(tokenizer: *const Tokenizer, prefix: *mut Ids, suffix: *mut Ids) {
    *prefix = (*tokenizer).prefix.clone().into();
    *suffix = (*tokenizer).suffix.clone().into();
}

/// `mark`: a code point that is taken out after special tokens were found; 0 for none. `window`: bytes of a long text
/// that are looked at together, where the tokenizer allows that; 0: as many as it likes.
#[no_mangle]
pub unsafe extern "C" fn stoke_text_encode(
    tokenizer: *const Tokenizer,
    text: Slice,
    parse_special: bool,
    mark: u32,
    window: usize,
    out: *mut Ids,
    error: *mut Bytes,
) -> bool {
    edge(error, || {
        let text = String::from_utf8_lossy(text.bytes());
        let mark = char::from_u32(mark).filter(|m| *m != '\0');
        *out = (*tokenizer).encode(&text, parse_special, mark, (window > 0).then_some(window)).map_err(text_of)?.into();
        Ok(())
    })
}

/// The bytes of a token.
#[no_mangle]
pub unsafe extern "C" fn stoke_text_token(tokenizer: *const Tokenizer, id: u32, out: *mut Bytes) {
    let bytes = catch_unwind(AssertUnwindSafe(|| (*tokenizer).bytes(id))).unwrap_or_default();
    *out = bytes.into();
}

#[no_mangle]
pub unsafe extern "C" fn stoke_text_is_special(tokenizer: *const Tokenizer, id: u32) -> bool {
    (*tokenizer).is_special(id)
}

/// The id of the token of this name, or -1.
#[no_mangle]
pub unsafe extern "C" fn stoke_text_id(tokenizer: *const Tokenizer, name: Slice) -> i64 {
    let find = || name.text().ok().and_then(|n| (*tokenizer).id(n));
    catch_unwind(AssertUnwindSafe(find)).ok().flatten().map_or(-1, i64::from)
}

#[no_mangle]
pub unsafe extern "C" fn stoke_text_chat_new(
    source: Slice,
    bos: Slice,
    eos: Slice,
    out: *mut *mut Arc<Chat>,
    error: *mut Bytes,
) -> bool {
    edge(error, || {
        let chat = Chat::new(source.lossy(), bos.lossy(), eos.lossy())?;
        *out = Box::into_raw(Box::new(chat));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn stoke_text_chat_free(chat: *mut Arc<Chat>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(chat))));
}

/// `tokenizer` may be null: nothing is marked then. `mark` becomes 0 where none was needed.
#[no_mangle]
pub unsafe extern "C" fn stoke_text_chat_render(
    chat: *const Arc<Chat>,
    tokenizer: *const Tokenizer,
    request: *const RequestAbi,
    out: *mut Bytes,
    mark: *mut u32,
    error: *mut Bytes,
) -> bool {
    edge(error, || {
        let abi = &*request;
        let request = Request {
            messages: abi.messages.lossy(),
            tools: abi.tools.lossy(),
            variables: abi.variables.lossy(),
            add_generation_prompt: abi.add_generation_prompt != 0,
            now: abi.now,
        };
        let rendered = (*chat).render(request, tokenizer.as_ref())?;
        *mark = rendered.mark.map_or(0, u32::from);
        *out = rendered.text.into_bytes().into();
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn stoke_text_bytes_free(bytes: Bytes) {
    drop(Vec::from_raw_parts(bytes.data, bytes.size, bytes.capacity));
}

#[no_mangle]
pub unsafe extern "C" fn stoke_text_ids_free(ids: Ids) {
    drop(Vec::from_raw_parts(ids.data, ids.size, ids.capacity));
}

#[no_mangle]
pub extern "C" fn stoke_text_live_bytes() -> usize {
    memory::live_bytes()
}
