//! What things take on the heap, as an allocator rounds it. Estimates for the accounting of caches; a test compares them with
//! what jemalloc says.

/// What an allocator sets aside for this many bytes: jemalloc's size classes, four to each doubling above 128 bytes, and whole
/// pages above 32 kB. glibc takes less for most sizes, and 8 more for small ones.
pub(crate) const fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        // Nothing is ever that big; it must not overflow here.
        _ if bytes > isize::MAX as usize => bytes,
        129..=32_768 => bytes.next_multiple_of(bytes.next_power_of_two() / 8),
        _ => bytes.next_multiple_of(4096),
    }
}

/// What is behind an `Arc` of this many bytes: two counts and the bytes.
pub(crate) const fn shared(bytes: usize) -> usize {
    allocated((2 * size_of::<usize>() + bytes).next_multiple_of(size_of::<usize>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_to_classes() {
        let classes = [
            (0, 0),
            (1, 8),
            (8, 8),
            (9, 16),
            (17, 32),
            (112, 112),
            (113, 128),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (1025, 1280),
            (4096, 4096),
            (4097, 5120),
            (28_673, 32_768),
            (32_768, 32_768),
            (32_769, 36_864),
            (100_000, 102_400),
        ];
        for (bytes, expected) in classes {
            assert_eq!(allocated(bytes), expected, "{bytes}");
        }
        assert_eq!(allocated(usize::MAX), usize::MAX);
        assert_eq!(shared(1), 32);
    }
}
