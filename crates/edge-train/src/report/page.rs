//! What every part of the page is written with: escaping, numbers, names and the style sheet.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` for the inside of an element or of a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            // HTML has no way to write these, not even escaped; file names may hold them.
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

/// `text` for the inside of a sentence, whose order a right-to-left name must not turn.
pub fn isolated(text: &str) -> String {
    format!("<bdi>{}</bdi>", escape(text))
}

/// The name of a class, or its number where there is no name.
pub fn class_name(classes: &[String], class: usize) -> Cow<'_, str> {
    classes.get(class).map_or_else(|| format!("class {class}").into(), |name| name.as_str().into())
}

/// A share with three digits; "-" where there is none.
pub fn share(value: Option<f64>) -> String {
    value.filter(|v| v.is_finite()).map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"))
}

/// A score in percent, whose sign stays with it; "-" where the network gave no number.
pub fn percent(score: f32) -> String {
    if score.is_finite() { format!("{:.1}\u{a0}%", f64::from(score) * 100.0) } else { "-".to_owned() }
}

/// A number in as few digits as tell it from its neighbours.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-4..1e6).contains(&size) {
        let digits = format!("{value:.6}");
        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else if value.is_finite() {
        format!("{value:.3e}")
    } else {
        value.to_string()
    }
}

/// "1 photo", "2 photos".
pub fn count(n: usize, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// A part of a page.
pub struct Section {
    /// What links name.
    pub id: &'static str,
    /// What stands above it.
    pub title: &'static str,
    /// HTML.
    pub body: String,
}

/// A page that needs nothing else: `headline` and the bodies are HTML.
#[must_use]
pub fn document(title: &str, headline: &str, sections: &[Section]) -> String {
    let title = escape(title);
    // Should anything get past the escaping, the policy still keeps it from running or loading anything.
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{headline}"
    );
    out.push_str("<nav aria-label=\"Contents\">\n");
    for Section { id, title, .. } in sections {
        let _ = writeln!(out, "<a href=\"#{id}\">{title}</a>");
    }
    out.push_str("</nav>\n");
    for Section { id, title, body } in sections {
        let _ = write!(out, "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{body}</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// Large figures: what each is, its number, and a word more.
#[must_use]
pub fn figures(figures: &[(&str, String, String)]) -> String {
    let mut out = String::from("<dl class=\"figures\">\n");
    for (name, value, more) in figures {
        let more = if more.is_empty() { String::new() } else { format!(" <small>{more}</small>") };
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}{more}</dd></div>");
    }
    out.push_str("</dl>\n");
    out
}

/// The style sheet. The charts' colours are given anew for a dark screen, by the attributes plotters writes.
pub(super) const STYLE: &str = r##"
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --panel: #f6f8fa;
  --validation: #0b63c5; --training: #b35900; --right: 11 99 197; --wrong: 213 94 0;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #14181d; --ink: #e6e9ec; --soft: #9aa4ae; --line: #363d46; --panel: #1c2128;
    --validation: #6cb2ff; --training: #ffab5e; --right: 56 139 253; --wrong: 230 110 20;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 68rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--validation); }
nav { font-size: .9rem; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .75rem 0 0; }
small, .note, caption, figcaption { color: var(--soft); font-size: .875rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.figures div { background: var(--panel); border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; }
.figures dt { color: var(--soft); font-size: .875rem; }
.figures dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.figures dd small { display: block; font-weight: 400; }
.scroll { overflow-x: auto; max-width: 100%; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; padding: 0 0 .4rem; max-width: min(40rem, calc(100vw - 2rem)); }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; }
thead th { vertical-align: bottom; }
th:first-child, td.text, th.text { text-align: left; }
td.text, th.text { white-space: normal; overflow-wrap: break-word; min-width: 7rem; max-width: 32rem; }
tr.kept > * { background: rgb(var(--right) / .14); font-weight: 600; }
.bar { min-width: 5rem;
  background: linear-gradient(to right, rgb(var(--right) / .3) calc(var(--p) * 100%), transparent 0); }
.matrix { font-size: .8rem; }
.matrix th, .matrix td { border: 1px solid var(--line); padding: .2rem .35rem; text-align: center; }
.matrix tbody th, .matrix tfoot th {
  text-align: right; position: sticky; left: 0; background: var(--page);
  max-width: min(16rem, 35vw); overflow: hidden; text-overflow: ellipsis;
}
.matrix thead th[scope=col] {
  writing-mode: vertical-rl; transform: rotate(180deg); max-height: 12rem; overflow: hidden; text-align: left;
  text-overflow: ellipsis; border-width: 0 1px 1px 0;
}
.matrix td { min-width: 2rem; }
.wide { font-size: .7rem; }
.wide th, .wide td { padding: .15rem .2rem; }
.wide td { min-width: 1.3rem; }
.matrix .right { background: rgb(var(--right) / calc(var(--p) * .6)); font-weight: 700; outline: 2px solid var(--soft);
  outline-offset: -2px; }
.matrix .wrong { background: rgb(var(--wrong) / calc(.12 + var(--p) * .6)); }
.matrix .none, .matrix .sum { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; }
.plot { display: block; width: 100%; height: auto; }
.key { display: inline-block; white-space: nowrap; margin-right: .8rem; }
.key svg { vertical-align: middle; width: 2.2rem; height: .8rem; }
[stroke="#0B63C5"] { stroke: var(--validation); } [fill="#0B63C5"] { fill: var(--validation); }
[stroke="#B35900"] { stroke: var(--training); } [fill="#B35900"] { fill: var(--training); }
[stroke="#1B1F24"] { stroke: var(--ink); } [fill="#1B1F24"] { fill: var(--ink); }
[stroke="#D0D7DE"] { stroke: var(--line); } [fill="#D0D7DE"] { fill: var(--line); }
.photos { list-style: none; margin: .75rem 0; padding: 0; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(min(18.5rem, 100%), 1fr)); }
.photos li { display: flex; gap: .75rem; border: 1px solid var(--line); border-radius: .4rem; padding: .5rem;
  break-inside: avoid; font-size: .9rem; line-height: 1.35; }
.photos img, .gone { flex: 0 0 96px; width: 96px; height: 96px; border-radius: .2rem; object-fit: cover; }
.gone { display: flex; align-items: center; text-align: center; justify-content: center; background: var(--panel);
  border: 1px dashed var(--soft); color: var(--soft); font-size: .8rem; }
.photos div { min-width: 0; overflow-wrap: anywhere; }
.photos div span { display: block; }
.file { color: var(--soft); font-size: .75rem; margin-top: .25rem; }
.findings li { white-space: pre-line; overflow-wrap: anywhere; margin: .25rem 0; max-width: 46rem; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
summary { cursor: pointer; padding: .25rem 0; }
@media (max-width: 30rem) {
  .plot text { font-size: 36px; }
  th, td { padding: .25rem .35rem; }
  td.text, th.text { min-width: 5rem; }
  .bar { min-width: 3.5rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  .wide { font-size: 6pt; }
  .wide th, .wide td { padding: 1pt; min-width: 0; }
  .wide tbody th { max-width: 6rem; }
  h2, h3 { break-after: avoid; }
  tr, figure, pre, .figures, .matrix { break-inside: avoid; }
  tfoot { display: table-row-group; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  .bar, .matrix td, tr.kept > * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"##;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes() {
        assert_eq!(
            escape("<a href='x'>\"&\"</a>\u{7}"),
            "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&quot;&lt;/a&gt;\u{fffd}"
        );
        assert_eq!(isolated("a<b"), "<bdi>a&lt;b</bdi>");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(0.001), "0.001");
        assert_eq!(short(f64::from(0.001_f32)), "0.001");
        assert_eq!((short(0.0), short(12.5), short(-3.0)), ("0".into(), "12.5".into(), "-3".into()));
        assert_eq!((short(1e-5), short(2.5e9), short(f64::NAN)), ("1.000e-5".into(), "2.500e9".into(), "NaN".into()));
        assert_eq!(
            (share(Some(0.91234)), share(None), share(Some(f64::NAN))),
            ("0.912".into(), "-".into(), "-".into())
        );
        assert_eq!((percent(0.973), percent(f32::NAN)), ("97.3\u{a0}%".into(), "-".into()));
        assert_eq!((count(1, "photo"), count(0, "photo")), ("1 photo".into(), "0 photos".into()));
        assert_eq!(class_name(&[], 3), "class 3");
    }
}
