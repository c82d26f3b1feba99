//! Wiping freed memory. The one file of this crate with `unsafe` code.
//!
//! GMP keeps the limbs of secret integers in memory of its own and frees it as it is. [`install`] gives GMP allocation
//! functions that overwrite every block before it is released. [`WipingAllocator`] does the same for everything that
//! Rust code frees; a binary installs it as its `#[global_allocator]`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System, handle_alloc_error};
use std::ffi::c_void;
use std::sync::Once;

/// GMP asks for limbs, which are 8 bytes and aligned like that.
const LIMB_ALIGN: usize = 8;

/// Makes GMP wipe what it frees, in the whole process, from now on. Calling it again changes nothing.
///
/// # Security
/// Call it at the start of the process, before any secret integer is made.
pub fn install() {
    static ONCE: Once = Once::new();
    // SAFETY: the three functions keep GMP's contract: blocks of at least the size asked for, aligned for limbs, and they
    // do not return on failure. Blocks that GMP got from its default `malloc` before may be given to `release`: see there.
    ONCE.call_once(|| unsafe {
        gmp_mpfr_sys::gmp::set_memory_functions(Some(allocate), Some(reallocate), Some(release));
    });
}

/// The system allocator, with every block overwritten with zeros before it is released or moved.
pub struct WipingAllocator;

// SAFETY: every method passes its arguments on to `System` unchanged, and `realloc` is alloc, copy, dealloc as the
// trait's contract describes it. A block is wiped while it is still owned.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller owns `block`, which is `layout.size()` bytes long and came from `System`.
        unsafe {
            wipe(block, layout.size());
            System.dealloc(block, layout);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size` is valid for this alignment. The new block does not overlap the old
        // one, and both are at least as long as what is copied.
        unsafe {
            let moved = System.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// Overwrites `len` bytes at `block` with zeros, in a way that the compiler may not leave out.
///
/// # Safety
/// `block` must be valid for writes of `len` bytes.
unsafe fn wipe(block: *mut u8, len: usize) {
    // SAFETY: the caller's promise. The empty assembly reads nothing; it only tells the compiler that memory behind
    // `block` may be looked at, so the zeros must be there.
    unsafe {
        block.write_bytes(0, len);
        std::arch::asm!("/* {0} */", in(reg) block, options(nostack, preserves_flags));
    }
    #[cfg(test)]
    tests::observe(block, len);
}

fn limbs(size: usize) -> Layout {
    match Layout::from_size_align(size.max(1), LIMB_ALIGN) {
        Ok(layout) => layout,
        Err(_) => handle_alloc_error(Layout::new::<u64>()),
    }
}

extern "C" fn allocate(size: usize) -> *mut c_void {
    let layout = limbs(size);
    // SAFETY: the layout's size is not zero.
    let block = unsafe { System.alloc(layout) };
    if block.is_null() {
        handle_alloc_error(layout);
    }
    block.cast()
}

unsafe extern "C" fn reallocate(block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    let moved = allocate(new);
    // SAFETY: GMP owns `block`, which is `old` bytes long, and has no other use for it; the new block does not overlap it.
    unsafe {
        moved.cast::<u8>().copy_from_nonoverlapping(block.cast(), old.min(new));
        release(block, old);
    }
    moved
}

unsafe extern "C" fn release(block: *mut c_void, size: usize) {
    // SAFETY: GMP owns `block` and tells its size as it was asked for. `System` frees blocks of this alignment with libc's
    // `free`, which is also right for those that GMP got from `malloc` before `install`.
    unsafe {
        wipe(block.cast(), size);
        System.dealloc(block.cast(), limbs(size));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::cell::RefCell;

    use rug::Integer;

    use super::*;

    thread_local! {
        /// Address, length and whether all bytes were zero, of each block that this thread has released since it began to
        /// watch.
        static RELEASED: RefCell<Option<Vec<(usize, usize, bool)>>> = const { RefCell::new(None) };
    }

    fn watch() {
        RELEASED.set(Some(Vec::new()));
    }

    pub(super) fn observe(block: *mut u8, len: usize) {
        let record = |released: &RefCell<Option<Vec<_>>>| {
            if let Some(released) = released.borrow_mut().as_mut() {
                // SAFETY: called with a block that is still owned, directly before it is released.
                let zero = unsafe { std::slice::from_raw_parts(block, len) }.iter().all(|byte| *byte == 0);
                released.push((block.addr(), len, zero));
            }
        };
        // A thread that is ending frees memory too, and watches nothing any more.
        RELEASED.try_with(record).unwrap_or_default();
    }

    fn released(address: usize) -> Option<(usize, bool)> {
        RELEASED.with_borrow(|list| {
            let (_, len, zero) = list.as_ref()?.iter().rev().find(|(at, _, _)| *at == address)?;
            Some((*len, *zero))
        })
    }

    fn limbs_of(integer: &Integer) -> usize {
        integer.as_limbs().as_ptr().addr()
    }

    #[test]
    fn freed_limbs_are_zero() {
        install();
        watch();
        let secret = (Integer::from(1) << 3072u32) - 12345;
        let address = limbs_of(&secret);
        assert!(secret.as_limbs().iter().any(|limb| *limb != 0));
        drop(secret);
        let (len, zero) = released(address).expect("the block went through the wiping release");
        assert!(zero && len >= 3072 / 8);
    }

    #[test]
    fn limbs_that_move_leave_zeros_behind() {
        install();
        watch();
        let mut secret = (Integer::from(1) << 512u32) - 1;
        let address = limbs_of(&secret);
        secret <<= 60_000u32;
        assert_ne!(limbs_of(&secret), address);
        assert!(released(address).expect("released").1);
        assert_eq!(secret >> 60_000u32, (Integer::from(1) << 512u32) - 1);
    }

    #[test]
    fn the_allocator_wipes_what_is_freed_and_what_moves() {
        watch();
        let layout = Layout::from_size_align(1000, 16).expect("valid");
        let larger = Layout::from_size_align(5000, 16).expect("valid");
        // SAFETY: each block is used within its layout and freed once with it.
        unsafe {
            let block = WipingAllocator.alloc(layout);
            block.write_bytes(0xAB, 1000);
            let moved = WipingAllocator.realloc(block, layout, 5000);
            assert_eq!(released(block.addr()), Some((1000, true)));
            assert!(std::slice::from_raw_parts(moved, 1000).iter().all(|byte| *byte == 0xAB));
            WipingAllocator.dealloc(moved, larger);
            assert_eq!(released(moved.addr()), Some((5000, true)));
        }
    }
}
