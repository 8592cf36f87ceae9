//! That no kernel touches a byte beside what it is handed, inline assembly too, which a sanitizer does not see: every slice lies
//! between two pages that end the program where they are touched.
#![cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]

use edge_kernels::{Depthwise, Epilogue, Isa, Places, Quads, Scale, Weights, Weights8, Window, gemm, gemm8};

/// At most a page of every processor.
const PAGE: usize = 64 << 10;

// Of the C library that std is linked with.
unsafe extern "C" {
    fn mmap(address: *mut u8, length: usize, protection: i32, flags: i32, file: i32, offset: i64) -> *mut u8;
    fn mprotect(address: *mut u8, length: usize, protection: i32) -> i32;
    fn munmap(address: *mut u8, length: usize) -> i32;
}

/// Values that end where a page begins which nobody may touch.
struct Guarded<T: Copy> {
    pages: *mut u8,
    length: usize,
    values: *mut T,
    count: usize,
}

impl<T: Copy> Guarded<T> {
    fn new(value: T, count: usize) -> Guarded<T> {
        let bytes = count * size_of::<T>();
        let length = bytes.next_multiple_of(PAGE) + 2 * PAGE;
        // SAFETY: new memory, readable and writable but for its first and last page; the values lie before the last and are
        // written before they are lent.
        unsafe {
            let pages = mmap(std::ptr::null_mut(), length, 3, 0x22, -1, 0);
            assert_ne!(pages as isize, -1);
            assert_eq!(mprotect(pages, PAGE, 0), 0);
            assert_eq!(mprotect(pages.add(length - PAGE), PAGE, 0), 0);
            let values = pages.add(length - PAGE - bytes).cast::<T>();
            (0..count).for_each(|i| values.add(i).write(value));
            Guarded { pages, length, values, count }
        }
    }

    fn lend(&mut self) -> &mut [T] {
        // SAFETY: so many values were written, and are borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.values, self.count) }
    }
}

impl<T: Copy> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the pages are this value's own.
        unsafe { munmap(self.pages, self.length) };
    }
}

#[test]
fn products_of_matrices_stay_within_their_slices() {
    let value = |a: usize, b: usize| ((a * 7 + b * 3) % 255) as i16 - 127;
    for isa in Isa::available() {
        for k in [1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 20, 24, 27, 32, 33, 36, 52, 64] {
            for (m, n) in [1, 2, 3, 4, 6, 11, 12].into_iter().flat_map(|m| [8, 16, 24].map(|n| (m, n))) {
                let scales = vec![0.01; isa.padded(n)];
                let scale = Scale { factor: &scales, offset: &scales, limits: [0.0, 255.0], zero: 0 };
                let quads = Quads::pack(isa, k, n, 1, 3, value).unwrap();
                let starts: Vec<u32> = (0..m).map(|i| (i * quads.k()) as u32).collect();
                let rows = Places { starts: &starts, pitch: 0 };
                let mut a = Guarded::new(5_u8, m * quads.k());
                quads.multiply(a.lend(), rows, &scale, Guarded::new(0, m * quads.n()).lend());
                quads.multiply_float(a.lend(), rows, &scale, Guarded::new(0.0, m * quads.n()).lend());
                let pairs = Weights8::pack(isa, k, n, value).unwrap();
                gemm8(Guarded::new(5, m * pairs.k()).lend(), &pairs, &scale, Guarded::new(0, m * pairs.n()).lend());
                let weights = Weights::pack(isa, k, n, 1, |a, b| (a + b) as f32);
                let starts: Vec<u32> = (0..m).map(|i| (i * k) as u32).collect();
                let rows = Places { starts: &starts, pitch: 0 };
                let epilogue = Epilogue { bias: &scales, residual: None, low: f32::NEG_INFINITY, high: f32::INFINITY };
                let mut c = Guarded::new(0.0, m * weights.n());
                gemm(Guarded::new(0.5, m * k).lend(), rows, &weights, &epilogue, c.lend());
            }
        }
    }
}

#[test]
fn depthwise_convolutions_stay_within_their_slices() {
    for isa in Isa::available() {
        for side in [3, 5, 8, 9] {
            for (kernel, stride, around) in [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (7, 1, 3), (3, 1, 0)] {
                let Some(window) = Window::new([side; 2], [kernel; 2], [stride; 2], [1; 2], [around; 2], [around; 2])
                else {
                    continue;
                };
                for channels in [8, 16, 24, 72] {
                    let open = [f32::NEG_INFINITY, f32::INFINITY];
                    let filter = |t: usize, c: usize| ((t * 5 + c) % 200) as f32 - 100.0;
                    let layer = Depthwise::new(isa, window, channels, filter, |_| 1.0, open, [0.0, 255.0]);
                    let (read, all) = (layer.input_len(), 0..window.positions());
                    let written = all.len() * layer.channels();
                    layer.run(Guarded::new(1.0, read).lend(), all.clone(), Guarded::new(0.0, written).lend());
                    let layer = layer.on_bytes(|_| 0.01, [7, 0]);
                    let mut input = Guarded::new(1, read);
                    layer.run_bytes(input.lend(), all.clone(), Guarded::new(0, written).lend());
                    layer.run_strip(input.lend(), all, Guarded::new(0, written).lend());
                }
            }
        }
    }
}
