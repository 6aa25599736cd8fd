//! What services were told once, so that a pass that changes nothing does not say it again.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
};

use lru::LruCache;

/// Services that are remembered. One that is forgotten hears the same thing again, which does no harm.
const MOST: usize = 4096;

/// Who was told what last.
pub(crate) struct Told {
    by_uid: Mutex<LruCache<Box<str>, u64>>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            by_uid: Mutex::new(LruCache::unbounded()),
        }
    }
}

impl Told {
    /// Whether this is news for the service; it counts as told from now on. Nothing at all is never news.
    pub(crate) fn is_news(&self, uid: &str, texts: &[String]) -> bool {
        let mut by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.is_empty() {
            by_uid.pop(uid);
            return false;
        }
        let mut hasher = DefaultHasher::new();
        texts.hash(&mut hasher);
        let digest = hasher.finish();
        if by_uid.get(uid) == Some(&digest) {
            return false;
        }
        by_uid.put(uid.into(), digest);
        if by_uid.len() > MOST {
            by_uid.pop_lru();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_news_once_and_again_after_it_was_gone() {
        let told = Told::default();
        let one = ["a".to_owned()];
        assert!(!told.is_news("u", &[]));
        assert!(told.is_news("u", &one));
        assert!(!told.is_news("u", &one));
        assert!(told.is_news("v", &one), "another service");
        assert!(told.is_news("u", &["a".to_owned(), "b".to_owned()]));
        assert!(!told.is_news("u", &[]));
        assert!(told.is_news("u", &one));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let told = Told::default();
        for number in 0..=MOST {
            assert!(told.is_news(&number.to_string(), &["a".to_owned()]));
        }
        assert!(!told.is_news(&MOST.to_string(), &["a".to_owned()]));
        assert!(told.is_news("0", &["a".to_owned()]), "the first was forgotten");
    }
}
