//! `alluxio-fuse top`: a page of what a mount does, drawn anew after each interval.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use crossterm::cursor;
use crossterm::event;
use crossterm::event::Event;
use crossterm::event::KeyCode;
use crossterm::event::KeyModifiers;
use crossterm::execute;
use crossterm::queue;
use crossterm::style::Print;
use crossterm::terminal;

use super::args::TopArgs;
use super::look;
use super::out;
use super::threads;
use crate::mount::Answer;
use crate::mount::Ask;
use crate::mount::Control;
use crate::mount::Failure;
use crate::mount::Row;
use crate::mount::Top;

/// How often it is looked for keys.
const KEYS: Duration = Duration::from_millis(100);

/// Width of a page that no terminal bounds.
const WIDTH: usize = 120;

pub(super) fn run(args: &TopArgs) -> ExitCode {
    look::finish(top(args))
}

fn top(args: &TopArgs) -> Result<(), Failure> {
    let interval = Duration::from_secs(args.delay);
    let ask = Ask::Top { interval_ms: args.delay * 1000 };
    let mut control = look::ask(args.point.as_deref(), &ask, interval)?;
    if args.once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let page = next(&mut control)?.ok_or_else(|| Failure::new("the mount has ended"))?;
        page_of(&page, WIDTH).into_iter().for_each(out);
        return Ok(());
    }
    watch(control).map_err(|err| Failure::new(format!("terminal: {err}")))?
}

fn next(control: &mut Control) -> Result<Option<Top>, Failure> {
    match control.part()? {
        Some(Answer::Top(page)) => Ok(Some(*page)),
        Some(other) => Err(look::strange(&other)),
        None => Ok(None),
    }
}

/// The terminal as it was comes back when this goes.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show));
        drop(terminal::disable_raw_mode());
    }
}

/// Draws pages until a key ends it, or the mount.
fn watch(mut control: Control) -> io::Result<Result<(), Failure>> {
    let (sender, pages) = mpsc::channel();
    // Left behind when a key is hit: this process is about to end.
    std::thread::Builder::new().name("pages".to_owned()).spawn(move || {
        loop {
            let page = next(&mut control);
            let is_last = !matches!(page, Ok(Some(_)));
            if sender.send(page).is_err() || is_last {
                return;
            }
        }
    })?;
    let _screen = Screen::enter()?;
    let mut last: Option<Top> = None;
    loop {
        let fresh = match pages.recv_timeout(if last.is_none() { KEYS } else { Duration::ZERO }) {
            Ok(Ok(Some(page))) => {
                last = Some(page);
                true
            }
            Ok(Ok(None)) => return Ok(Ok(())),
            Ok(Err(failure)) => return Ok(Err(failure)),
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return Ok(Ok(())),
        };
        let mut resized = false;
        if event::poll(KEYS)? {
            match event::read()? {
                Event::Key(key) if is_end(key.code, key.modifiers) => return Ok(Ok(())),
                Event::Resize(..) => resized = true,
                _ => {}
            }
        }
        if let Some(page) = &last
            && (fresh || resized)
        {
            draw(page)?;
        }
    }
}

fn is_end(code: KeyCode, modifiers: KeyModifiers) -> bool {
    matches!(code, KeyCode::Char('q' | 'Q') | KeyCode::Esc)
        || code == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL)
}

fn draw(page: &Top) -> io::Result<()> {
    let (width, height) = terminal::size()?;
    let mut lines = page_of(page, usize::from(width));
    lines.truncate(usize::from(height));
    let mut screen = io::stdout().lock();
    for (row, line) in (0..).zip(&lines) {
        let clear = terminal::Clear(terminal::ClearType::UntilNewLine);
        queue!(screen, cursor::MoveTo(0, row), Print(line), clear)?;
    }
    queue!(screen, terminal::Clear(terminal::ClearType::FromCursorDown))?;
    screen.flush()
}

/// The lines of a page, none wider than `width` letters.
fn page_of(page: &Top, width: usize) -> Vec<String> {
    let mut lines = vec![
        format!(
            "alluxio-fuse top - {}, process {}, {} at work, {} idle, {} open, {} of memory",
            look::plain(&page.mount),
            page.pid,
            page.busy,
            page.idle,
            page.open_handles,
            look::bytes(page.resident)
        ),
        format!("Read in {}: {}", look::time(page.seconds), sources(page)),
    ];
    lines.extend(page.state.iter().map(|sentence| look::plain(sentence)));
    if let Some(longest) = &page.longest {
        lines.push(format!("Longest: {}", threads::busy(longest).trim_start()));
    }
    if page.dropped > 0 {
        lines.push(format!("{} operations are not counted here, they came too fast", page.dropped));
    }
    for (title, rows) in [("OPERATION", &page.ops), ("FILE", &page.files), ("CALLER", &page.callers)] {
        lines.push(String::new());
        lines.push(format!(
            "{:>9} {:>7} {:>10} {:>9} {:>9} {:>9}  {title}",
            "per s", "failed", "bytes/s", "mean", "p99", "max"
        ));
        lines.extend(rows.iter().map(|row| row_of(row, page.seconds)));
    }
    lines.into_iter().map(|line| line.chars().take(width).collect()).collect()
}

fn sources(page: &Top) -> String {
    if page.sources.is_empty() {
        return "nothing".to_owned();
    }
    let parts: Vec<String> =
        page.sources.iter().map(|(name, count)| format!("{} {name}", look::bytes(*count))).collect();
    parts.join(", ")
}

fn row_of(row: &Row, seconds: f64) -> String {
    let per_second = |count: u64| count as f64 / seconds.max(1e-3);
    let micros = |micros: u64| look::time(micros as f64 / 1e6);
    format!(
        "{:>9.1} {:>7} {:>10} {:>9} {:>9} {:>9}  {}",
        per_second(row.count),
        row.failed,
        look::bytes(per_second(row.bytes) as u64),
        micros(row.mean_us),
        row.p99_us.map(micros).unwrap_or_default(),
        micros(row.max_us),
        look::plain(&row.name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_the_terminal_and_tells_what_was_done() {
        let row = Row { name: "read".to_owned(), count: 20, bytes: 4096, failed: 1, ..Row::default() };
        let page = Top { seconds: 2.0, ops: vec![row], dropped: 3, ..Top::default() };
        let text = page_of(&page, 200).join("\n");
        assert!(text.contains("     10.0       1    2.0 KiB"), "{text}");
        assert!(text.contains("Read in 2.0 s: nothing"), "{text}");
        assert!(text.contains("3 operations are not counted"), "{text}");
        assert!(page_of(&page, 20).iter().all(|line| line.chars().count() <= 20));
    }

    #[test]
    fn keys_that_people_try_end_it() {
        let none = KeyModifiers::NONE;
        assert!(is_end(KeyCode::Char('q'), none) && is_end(KeyCode::Esc, none));
        assert!(is_end(KeyCode::Char('c'), KeyModifiers::CONTROL) && !is_end(KeyCode::Char('c'), none));
    }
}
