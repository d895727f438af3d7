//! The allocator of this library: the system's, counting live bytes, with a ceiling for threads that run a template.
//!
//! A template of a hostile model file can double a string until the machine is full, and no Rust allocation can fail
//! gently. So a template runs in a thread of its own with an allowance. A thread that has used it up is stopped inside
//! the allocator, for good: its waiting caller is told, and what the thread held (at most the allowance) stays taken.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// What a limited thread and the one waiting for it tell each other.
#[derive(Default)]
pub struct Allowance {
    used_up: AtomicBool,
    stop: AtomicBool,
}

impl Allowance {
    /// The thread has been stopped because it took too much.
    pub fn used_up(&self) -> bool {
        self.used_up.load(Ordering::Acquire)
    }

    /// Stops the thread when it next takes memory.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

thread_local! {
    /// Bytes this thread may still take.
    static LEFT: Cell<isize> = const { Cell::new(0) };
    /// Null where there is no limit.
    static LIMIT: Cell<*const Allowance> = const { Cell::new(std::ptr::null()) };
}

/// Bytes this library holds at this moment.
pub fn live_bytes() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Limits what the calling thread may take from now on.
pub fn limit_this_thread(bytes: usize, allowance: Arc<Allowance>) {
    LEFT.with(|left| left.set(bytes as isize));
    LIMIT.with(|limit| limit.set(Arc::into_raw(allowance)));
}

/// Ends the limit of the calling thread.
pub fn unlimit_this_thread() {
    let raw = LIMIT.with(|limit| limit.replace(std::ptr::null()));
    if !raw.is_null() {
        // SAFETY: raw came from Arc::into_raw in limit_this_thread and is given back once.
        drop(unsafe { Arc::from_raw(raw) });
    }
}

/// What the system's allocator really sets aside for so many bytes.
fn footprint(bytes: usize) -> usize {
    (bytes.saturating_add(23) & !15).max(32)
}

fn charge(bytes: usize) {
    let bytes = footprint(bytes);
    let limit = LIMIT.try_with(Cell::get).unwrap_or(std::ptr::null());
    if !limit.is_null() {
        // SAFETY: limit_this_thread's share of the Arc keeps it alive until unlimit_this_thread clears LIMIT.
        charge_limited(bytes, unsafe { &*limit });
    }
    LIVE.fetch_add(bytes, Ordering::Relaxed);
}

fn charge_limited(bytes: usize, allowance: &Allowance) {
    let left = LEFT.with(Cell::get).saturating_sub_unsigned(bytes);
    LEFT.with(|l| l.set(left));
    if left >= 0 && !allowance.stop.load(Ordering::Acquire) {
        return;
    }
    allowance.used_up.store(true, Ordering::Release);
    loop {
        // SAFETY: pause only waits; it neither allocates nor unwinds.
        unsafe { libc::pause() };
    }
}

fn refund(bytes: usize) {
    let bytes = footprint(bytes);
    LIVE.fetch_sub(bytes, Ordering::Relaxed);
    if !LIMIT.try_with(Cell::get).unwrap_or(std::ptr::null()).is_null() {
        let _ = LEFT.try_with(|left| left.set(left.get().saturating_add_unsigned(bytes)));
    }
}

// SAFETY: every call goes to the system allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        charge(layout.size());
        System.alloc(layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        charge(layout.size());
        System.alloc_zeroed(layout)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        System.dealloc(pointer, layout);
        refund(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        charge(new_size);
        let moved = System.realloc(pointer, layout, new_size);
        refund(layout.size());
        moved
    }
}
