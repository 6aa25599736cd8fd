//! What the demo prints.

use std::{
    io::{self, Write},
    time::Instant,
};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// The one writer of the demo.
pub(super) struct Screen<W> {
    out: W,
    styled: bool,
}

/// A step that has begun.
pub(super) struct Step {
    began: Instant,
}

impl<W: Write> Screen<W> {
    /// With `styled`, some text is bold or dim.
    pub(super) fn new(out: W, styled: bool) -> Self {
        Self { out, styled }
    }

    /// Says that a step begins. On a line of its own, because what the step starts may print as well.
    pub(super) fn step(&mut self, what: &str) -> io::Result<Step> {
        let what = self.style(BOLD, what);
        self.line(&format!("{what} ..."))?;
        Ok(Step { began: Instant::now() })
    }

    /// Says that the step is done, how long it took and what came of it.
    pub(super) fn done(&mut self, step: &Step, detail: &str) -> io::Result<()> {
        let comma = if detail.is_empty() { "" } else { ", " };
        let text = format!("    {:.1} s{comma}{detail}", step.began.elapsed().as_secs_f64());
        let text = self.style(DIM, &text);
        self.line(&text)
    }

    /// A line that stands out.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        let text = self.style(BOLD, text);
        self.line(&text)
    }

    /// A line.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Lines that end with the text.
    pub(super) fn block(&mut self, text: &str) -> io::Result<()> {
        write!(self.out, "{text}")?;
        self.out.flush()
    }

    fn style(&self, style: &str, text: &str) -> String {
        if self.styled {
            format!("{style}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

/// KiB as MiB.
pub(super) fn mebibytes(kib: u64) -> f64 {
    // Exact: no process and no file here has 2^53 KiB.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let kib = kib as f64;
    kib / 1024.0
}

#[cfg(test)]
mod tests {
    use super::Screen;

    fn printed(styled: bool) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, styled);
        let step = screen.step("Do it").expect("memory takes it");
        screen.done(&step, "well").expect("memory takes it");
        screen.heading("Now").expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_step_is_told_twice() {
        let text = printed(false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[2]), ("Do it ...", "Now"));
        assert!(lines[1].starts_with("    ") && lines[1].ends_with(" s, well"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn styles_are_ended() {
        let text = printed(true);
        assert_eq!(text.matches('\x1b').count(), 6);
        assert_eq!(text.matches("\x1b[0m").count(), 3);
    }
}
