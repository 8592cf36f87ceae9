//! After the first pictures nothing is allocated for another one, by no thread.

use edge_engine::{Backend, CpuBackend, InputHint, LoadOptions, OnnxModel};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_picture_costs_no_allocation() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/efficientnet-lite0/efficientnet-lite0.onnx");
    let bytes = std::fs::read(path).unwrap();
    let model = OnnxModel::parse(&bytes).unwrap();
    let contract = model.contract(&InputHint::default()).unwrap();
    for threads in [1, 2, 3] {
        let options = LoadOptions { threads };
        let mut backend = CpuBackend::load(&model, &contract.input, &contract.output, &options).unwrap();
        assert!(backend.parts().iter().all(|p| p.by == "edge-kernels"), "a part of it runs elsewhere");
        let mut logits = vec![0.0; backend.description().classes];
        let tensor: Vec<f32> = (0..contract.input.len()).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
        for _ in 0..3 {
            backend.classify(&tensor, &mut logits).unwrap();
        }
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..5 {
            backend.classify(&tensor, &mut logits).unwrap();
        }
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{threads} threads");
    }
}
