//! SentencePiece BPE: merge the adjacent pair whose joined piece scores highest, the leftmost first among equals.
//!
//! A list of ranked merges cannot say this (two ways to build one piece share its score, and then the position
//! decides), hence a model of its own.

use ahash::AHashMap;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// How a piece may be used.
#[derive(Clone, Copy)]
pub struct Piece {
    pub id: u32,
    pub score: f32,
    /// Takes part in merging but is split again where it would be the result.
    pub unused: bool,
}

pub struct SpmBpe {
    pieces: AHashMap<Box<str>, Piece>,
    longest: usize,
    /// Ids of the 256 byte pieces, where the vocabulary has them all.
    bytes: Option<Vec<u32>>,
    unk: u32,
}

struct Symbol {
    start: usize,
    len: usize,
    prev: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

/// How a piece was built, to take an unused one apart again: byte lengths of its two halves.
type Halves<'t> = AHashMap<&'t str, (usize, usize)>;

impl SpmBpe {
    pub fn new(pieces: AHashMap<Box<str>, Piece>, bytes: Option<Vec<u32>>, unk: u32) -> Self {
        let longest = pieces.keys().map(|k| k.len()).max().unwrap_or(0);
        Self { pieces, longest, bytes, unk }
    }

    pub fn id(&self, piece: &str) -> Option<u32> {
        self.pieces.get(piece).map(|p| p.id)
    }

    pub fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        for (start, c) in text.char_indices() {
            let at = symbols.len();
            symbols.push(Symbol { start, len: c.len_utf8(), prev: at.wrapping_sub(1), next: at + 1 });
        }
        let Some(last) = symbols.last_mut() else { return };
        last.next = NONE;

        let mut halves = Halves::new();
        self.merge(text, &mut symbols, &mut halves);
        let mut at = 0;
        let mut after_unk = false;
        while at != NONE {
            let s = &symbols[at];
            self.emit(&text[s.start..s.start + s.len], &halves, &mut after_unk, out);
            at = s.next;
        }
    }

    fn merge<'t>(&self, text: &'t str, symbols: &mut [Symbol], halves: &mut Halves<'t>) {
        let mut queue = BinaryHeap::new();
        for right in 1..symbols.len() {
            self.propose(text, symbols, right - 1, right, halves, &mut queue);
        }
        while let Some(best) = queue.pop() {
            let (left_len, right_len) = (symbols[best.left].len, symbols[best.right].len);
            if left_len == 0 || right_len == 0 || left_len + right_len != best.len {
                continue; // one side was merged since this was proposed
            }
            let next = symbols[best.right].next;
            symbols[best.right].len = 0;
            symbols[best.left].len = best.len;
            symbols[best.left].next = next;
            if next != NONE {
                symbols[next].prev = best.left;
                self.propose(text, symbols, best.left, next, halves, &mut queue);
            }
            let prev = symbols[best.left].prev;
            if prev != NONE {
                self.propose(text, symbols, prev, best.left, halves, &mut queue);
            }
        }
    }

    fn propose<'t>(
        &self,
        text: &'t str,
        symbols: &[Symbol],
        left: usize,
        right: usize,
        halves: &mut Halves<'t>,
        queue: &mut BinaryHeap<Candidate>,
    ) {
        let (a, b) = (&symbols[left], &symbols[right]);
        let len = a.len + b.len;
        if len > self.longest {
            return;
        }
        let piece = &text[a.start..a.start + len];
        if let Some(found) = self.pieces.get(piece) {
            queue.push(Candidate { score: found.score, left, right, len });
            if found.unused {
                halves.insert(piece, (a.len, b.len));
            }
        }
    }

    fn emit(&self, piece: &str, halves: &Halves, after_unk: &mut bool, out: &mut Vec<u32>) {
        match self.pieces.get(piece) {
            Some(found) if !found.unused => {
                *after_unk = false;
                out.push(found.id);
                return;
            }
            Some(found) => {
                if let Some(&(left, _)) = halves.get(piece) {
                    self.emit(&piece[..left], halves, after_unk, out);
                    self.emit(&piece[left..], halves, after_unk, out);
                } else {
                    *after_unk = false;
                    out.push(found.id);
                }
                return;
            }
            None => {}
        }
        if let Some(bytes) = &self.bytes {
            out.extend(piece.bytes().map(|b| bytes[b as usize]));
        } else if !*after_unk {
            // Unknown text in a row is one unknown token.
            out.push(self.unk);
            *after_unk = true;
        }
    }
}
