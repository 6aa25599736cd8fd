//! What things take on the heap, as an allocator rounds it. Estimates for the accounting of caches; a test compares them with
//! what jemalloc says.

/// Room for pairs in a node of the standard library's `BTreeMap`.
const NODE_PAIRS: usize = 11;
/// Pairs for each leaf, one of them in the parent, when keys were inserted in ascending order, as API servers send them: each
/// leaf that is full is split six to four.
const PAIRS_A_LEAF: usize = 7;

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

/// The nodes of a `BTreeMap` with so many pairs, without what keys and values own.
pub(crate) const fn btree_map<K, V>(pairs: usize) -> usize {
    let leaf = size_of::<usize>() + NODE_PAIRS * (size_of::<K>() + size_of::<V>()) + 2 * size_of::<u16>();
    let leaf = leaf.next_multiple_of(size_of::<usize>());
    let inner = leaf + (NODE_PAIRS + 1) * size_of::<usize>();
    if pairs == 0 {
        return 0;
    }
    if pairs <= NODE_PAIRS {
        return allocated(leaf);
    }
    let leaves = pairs.div_ceil(PAIRS_A_LEAF);
    leaves * allocated(leaf) + leaves.div_ceil(PAIRS_A_LEAF) * allocated(inner)
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

    #[test]
    fn maps_take_a_leaf_at_least_and_grow_by_leaves() {
        type Name = Box<str>;
        assert_eq!(btree_map::<Name, Name>(0), 0);
        let leaf = btree_map::<Name, Name>(1);
        assert_eq!(leaf, 384);
        assert_eq!(btree_map::<Name, Name>(11), leaf);
        assert_eq!(btree_map::<Name, Name>(12), 2 * leaf + 512);
        assert_eq!(btree_map::<Name, Name>(70), 10 * leaf + 2 * 512);
        assert_eq!(btree_map::<u32, u32>(11), 112);
        assert_eq!(btree_map::<u32, u32>(12), 2 * 112 + 224);
    }
}
