//! The growing buffer over all interleavings of a writer and readers: the very file of the crate, with loom's atomics
//! and with a cell for each byte that notices a read which is not ordered after the write.

#![allow(clippy::unwrap_used)] // a test may end at the first surprise

use loom::sync::Arc;

mod sync {
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicUsize, Ordering};

    /// A cell for each byte of the buffer; loom panics at accesses that race.
    pub(super) struct Shadow(Vec<loom::cell::UnsafeCell<()>>);

    impl Shadow {
        pub(super) fn new(len: usize) -> Self {
            Self((0..len).map(|_| loom::cell::UnsafeCell::new(())).collect())
        }

        pub(super) fn reading(&self, range: std::ops::Range<usize>) {
            self.0[range].iter().for_each(|cell| cell.with(|_| ()));
        }

        pub(super) fn writing(&self, range: std::ops::Range<usize>) {
            self.0[range].iter().for_each(|cell| cell.with_mut(|_| ()));
        }
    }

    // SAFETY: loom checks every access to the cells, which hold nothing.
    unsafe impl Sync for Shadow {}
}

#[allow(dead_code)] // the model does not use all of it
#[path = "../src/cache/growing.rs"]
mod growing;

use growing::{Growing, Memory};

struct Leaked(&'static mut [u8]);

// SAFETY: leaked memory stays where it is, and nothing else refers to it.
unsafe impl Memory for Leaked {
    fn base(&mut self) -> std::ptr::NonNull<u8> {
        std::ptr::NonNull::new(self.0.as_mut_ptr()).unwrap()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

#[test]
fn readers_see_only_published_bytes_and_see_them_whole() {
    loom::model(|| {
        let memory = Leaked(Box::leak(vec![0u8; 3].into_boxed_slice()));
        let (shared, mut writer) = Growing::new(memory);
        let reader = {
            let shared: Arc<Growing<Leaked>> = shared.clone();
            loom::thread::spawn(move || {
                let filled = shared.filled();
                assert!(Growing::slice(&shared, 0..filled + 4).is_none());
                if let Some(slice) = Growing::slice(&shared, 0..filled) {
                    let expected: Vec<u8> = (1..=3).take(filled).collect();
                    assert_eq!(slice.as_ref(), expected);
                }
            })
        };
        writer.spare()[0] = 1;
        writer.publish(1);
        writer.spare()[..2].copy_from_slice(&[2, 3]);
        writer.publish(2);
        reader.join().unwrap();
        assert_eq!(Growing::slice(&shared, 0..3).map(|slice| slice.as_ref().to_vec()), Some(vec![1, 2, 3]));
    });
}
