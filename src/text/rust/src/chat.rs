//! Chat templates: Jinja as the model's makers run it (trimmed blocks, loop controls, Python's methods and spelling),
//! in a thread with bounds on steps, memory and time, since a template is a program that came with a file.

use crate::memory::{self, Allowance};
use crate::python;
use crate::tokenizer::{matcher, Tokenizer};
use aho_corasick::AhoCorasick;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use serde_json::Value as Json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

const FUEL: u64 = 20_000_000;
const MEMORY: usize = 256 << 20;
const TIME: Duration = Duration::from_secs(20);
const STACK: usize = 64 << 20;
const NAME: &str = "chat template";

pub struct Chat {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    /// A render was stopped half-way; what it left locked is unknown.
    broken: AtomicBool,
}

pub struct Request {
    pub messages: String,
    /// Empty where there are none.
    pub tools: String,
    /// A JSON object of further variables, or empty.
    pub variables: String,
    pub add_generation_prompt: bool,
    /// Seconds since 1970 that strftime_now sees.
    pub now: i64,
}

pub struct Rendered {
    pub text: String,
    /// Stands in `text` wherever special-token text came from the messages, to keep it from being one.
    pub mark: Option<char>,
}

/// Runs `work` in a thread of its own within the bounds above.
fn bounded<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let allowance = Arc::new(Allowance::default());
    let (sender, receiver) = mpsc::channel();
    let inside = allowance.clone();
    let run = move || {
        memory::limit_this_thread(MEMORY, inside);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        memory::unlimit_this_thread();
        let _ = sender.send(done.unwrap_or_else(|_| Err("the template engine failed".into())));
    };
    let thread = std::thread::Builder::new().stack_size(STACK);
    let thread = thread.spawn(run).map_err(|e| format!("no thread to run the template in: {e}"))?;
    let start = Instant::now();
    loop {
        match receiver.recv_timeout(Duration::from_millis(20)) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            ended => {
                // Its stack is back before we go on; and a sanitizer, blind to Rust's channels, sees threads that join.
                let _ = thread.join();
                return ended.unwrap_or_else(|_| Err("the template engine failed".into()));
            }
        }
        if allowance.used_up() {
            return Err(format!("the template takes more than {} MB", MEMORY >> 20));
        }
        if start.elapsed() > TIME {
            allowance.stop();
            return Err(format!("the template runs longer than {} s", TIME.as_secs()));
        }
    }
}

/// `{% generation %}` only marks what the assistant said for training; any block that always runs stands for it.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let Some(len) = rest[open..].find("%}") else { break };
        let inside = &rest[open + 2..open + len];
        let name = inside.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        out.push_str(&rest[..open + 2]);
        match name {
            "generation" => out.push_str(&inside.replace("generation", " if true ")),
            "endgeneration" => out.push_str(&inside.replace("endgeneration", " endif ")),
            _ => out.push_str(inside),
        }
        out.push_str("%}");
        rest = &rest[open + len + 2..];
    }
    out.push_str(rest);
    out
}

fn one_line(error: &Error) -> String {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "the template takes too many steps".to_owned(),
        (_, Some(detail)) => detail.replace('\n', " "),
        (kind, None) => kind.to_string(),
    };
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn to_json(value: &Value, ensure_ascii: Option<bool>, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let named_ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    kwargs.assert_all_used()?;
    let default_item = if indent.is_some() { "," } else { ", " };
    let mut separators = separators.unwrap_or_default().into_iter();
    let layout = python::Layout {
        indent: indent.map(|n| n.min(64)),
        item_separator: separators.next().unwrap_or_else(|| default_item.into()),
        key_separator: separators.next().unwrap_or_else(|| ": ".into()),
        sort_keys: sort_keys.unwrap_or(false),
        ensure_ascii: named_ascii.or(ensure_ascii).unwrap_or(false),
    };
    let mut out = String::new();
    python::json(value, &layout, 0, &mut out)?;
    Ok(Value::from(out))
}

/// str(value).
fn as_text(value: &Value) -> Result<Value, Error> {
    let mut out = String::new();
    python::text(value, &mut out)?;
    Ok(Value::from(out))
}

fn trim(value: &Value, characters: Option<String>) -> Result<Value, Error> {
    let mut text = String::new();
    python::text(value, &mut text)?;
    Ok(Value::from(match characters {
        Some(set) => text.trim_matches(|c| set.contains(c)),
        None => text.trim(),
    }))
}

/// Whether Python could loop over it; none is no empty list there.
fn is_iterable(value: &Value) -> bool {
    let kind = value.kind();
    kind == ValueKind::String || kind == ValueKind::Undefined || (kind != ValueKind::None && value.try_iter().is_ok())
}

/// strftime of the local time `now`.
fn strftime(now: i64, format: &str) -> Result<String, Error> {
    let bad = || Error::new(ErrorKind::InvalidOperation, "strftime_now: no such format");
    if format.is_empty() {
        return Ok(String::new());
    }
    let format = std::ffi::CString::new(format).map_err(|_| bad())?;
    let mut buffer = [0u8; 512];
    // SAFETY: both calls write inside what they are given; the format ends in NUL.
    let len = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&(now as libc::time_t), &mut parts).is_null() {
            return Err(bad());
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &parts)
    };
    if len == 0 {
        return Err(bad());
    }
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

fn methods(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), [arg]) = (value.as_str(), args) {
        let arg = arg.as_str();
        match (method, arg) {
            ("removeprefix", Some(a)) => return Ok(Value::from(text.strip_prefix(a).unwrap_or(text))),
            ("removesuffix", Some(a)) => return Ok(Value::from(text.strip_suffix(a).unwrap_or(text))),
            ("partition", Some(a)) if !a.is_empty() => {
                let parts = text.split_once(a).map_or([text, "", ""], |(head, tail)| [head, a, tail]);
                return Ok(Value::from(parts.map(str::to_owned).to_vec()));
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_fuel(Some(FUEL));
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(methods);
    env.set_formatter(|out, _state, value| {
        let mut text = String::new();
        python::text(value, &mut text)?;
        out.write_str(&text).map_err(Error::from)
    });
    env.add_function("raise_exception", raise_exception);
    env.add_filter("tojson", to_json);
    env.add_filter("string", as_text);
    env.add_filter("trim", trim);
    env.add_test("iterable", is_iterable);
    env
}

/// A character that stands nowhere in the messages nor, as far as can be seen, in the template.
fn unused_mark(texts: &[&str]) -> Option<char> {
    let candidates = (0xfdd0..=0xfdefu32).chain(0xf0000..=0xf00ff);
    candidates.filter_map(char::from_u32).find(|c| !texts.iter().any(|t| t.contains(*c)))
}

/// Puts marks into special-token text, and after a beginning of one at a string's end.
struct Marker {
    matcher: AhoCorasick,
    texts: Vec<String>,
    mark: char,
    used: bool,
}

impl Marker {
    fn string(&mut self, text: &mut String) {
        let mut at: Vec<usize> = Vec::new();
        let mut search = 0;
        // Overlapping ones, too: after a match the search goes on inside it.
        while let Some(found) = self.matcher.find(aho_corasick::Input::new(text.as_str()).range(search..)) {
            let first = text[found.start()..].chars().next().map_or(1, char::len_utf8);
            at.push(found.start() + first);
            search = found.start() + first;
        }
        let begun = |t: &String| t.char_indices().skip(1).any(|(len, _)| text.ends_with(&t[..len]));
        if self.texts.iter().any(begun) {
            at.push(text.len());
        }
        if at.is_empty() {
            return;
        }
        self.used = true;
        for place in at.into_iter().rev() {
            text.insert(place, self.mark);
        }
    }

    fn value(&mut self, value: &mut Json) {
        match value {
            Json::String(text) => self.string(text),
            Json::Array(items) => items.iter_mut().for_each(|v| self.value(v)),
            Json::Object(map) => map.values_mut().for_each(|v| self.value(v)),
            _ => {}
        }
    }
}

fn parse(what: &str, json: &str) -> Result<Json, String> {
    serde_json::from_str(json).map_err(|e| format!("the {what} are not JSON: {e}"))
}

/// Each message as the template wants it: a list of objects.
fn checked_messages(json: &str) -> Result<Json, String> {
    let messages = parse("messages", json)?;
    match &messages {
        Json::Array(items) if items.iter().all(Json::is_object) => Ok(messages),
        _ => Err("the messages are not a list of objects".into()),
    }
}

impl Chat {
    pub fn new(source: String, bos: String, eos: String) -> Result<Arc<Self>, String> {
        bounded(move || {
            let mut environment = environment();
            let source = without_generation_tags(&source);
            environment.add_template_owned(NAME, source).map_err(|e| one_line(&e))?;
            Ok(Arc::new(Self { environment, bos, eos, broken: AtomicBool::new(false) }))
        })
    }

    /// With a tokenizer, special-token text inside messages and tools is marked.
    pub fn render(self: &Arc<Self>, request: Request, tokenizer: Option<&Tokenizer>) -> Result<Rendered, String> {
        if self.broken.load(Ordering::Acquire) {
            return Err("the template was stopped before; it is not run again".into());
        }
        let texts = tokenizer.map(Tokenizer::special_texts).unwrap_or_default();
        let chat = self.clone();
        let started = Arc::new(AtomicBool::new(false));
        let finished = started.clone();
        let done = bounded(move || {
            let done = chat.render_here(request, texts);
            finished.store(true, Ordering::Release);
            done
        });
        if done.is_err() && !started.load(Ordering::Acquire) {
            self.broken.store(true, Ordering::Release);
        }
        done
    }

    fn render_here(&self, request: Request, specials: Vec<String>) -> Result<Rendered, String> {
        let mut messages = checked_messages(&request.messages)?;
        let mut tools = if request.tools.is_empty() { Json::Null } else { parse("tools", &request.tools)? };
        let mut mark = None;
        if !specials.is_empty() {
            let given = messages.to_string() + &tools.to_string();
            let unused = unused_mark(&[&given, &request.variables]).ok_or("the messages use every mark there is")?;
            let matcher = matcher(&specials).map_err(|e| e.to_string())?;
            let mut marker = Marker { matcher, texts: specials, mark: unused, used: false };
            marker.value(&mut messages);
            marker.value(&mut tools);
            mark = marker.used.then_some(unused);
        }
        let variables = self.variables(&request, messages, tools)?;
        let mut template = self.environment.clone();
        let now = request.now;
        template.add_function("strftime_now", move |format: String, _: Rest<Value>| strftime(now, &format));
        let template = template.get_template(NAME).map_err(|e| one_line(&e))?;
        let text = template.render(Value::from_serialize(&variables)).map_err(|e| one_line(&e))?;
        let mark = mark.filter(|m| text.contains(*m));
        Ok(Rendered { text, mark })
    }

    fn variables(&self, request: &Request, messages: Json, tools: Json) -> Result<Json, String> {
        let mut all = serde_json::Map::new();
        all.insert("documents".into(), Json::Null);
        if !request.variables.is_empty() {
            match parse("template variables", &request.variables)? {
                Json::Object(given) => all.extend(given),
                _ => return Err("the template variables are not a JSON object".into()),
            }
        }
        all.insert("messages".into(), messages);
        all.insert("tools".into(), tools);
        all.insert("add_generation_prompt".into(), Json::Bool(request.add_generation_prompt));
        all.insert("bos_token".into(), Json::String(self.bos.clone()));
        all.insert("eos_token".into(), Json::String(self.eos.clone()));
        Ok(Json::Object(all))
    }
}
