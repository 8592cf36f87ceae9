//! A run as a page that needs nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_suite::hil::{Evidence, Outcome, Run, Verdict};
use edge_train::report::page::{Section, count, document, escape, figures, isolated, short};
use edge_train::report::thumbnails::encode;
use edge_vision::{DecodeOptions, Interpolation, ResizePolicy, ResizeSpec, Resizer};
use std::fmt::Write as _;
use std::path::{Component, Path};

/// A picture is shown no wider than this, in pixels.
const WIDTH: u32 = 320;

/// The page; pictures are read from `folder`. One that cannot be read any more is a note.
pub fn html(run: &Run, folder: &Path) -> String {
    let mut sections = vec![];
    let failed: Vec<&Outcome> = run.cases.iter().filter(|case| case.verdict == Verdict::Failed).collect();
    if run.broken.is_some() || !failed.is_empty() {
        let mut body = String::new();
        if let Some(why) = &run.broken {
            let _ = writeln!(body, "<p>The device could not be used:</p>\n<pre>{}</pre>", escape(why));
        }
        for case in failed {
            let why = case.why.as_deref().unwrap_or_default();
            let _ = writeln!(body, "<h3>{}</h3>\n<pre>{}</pre>", isolated(&case.name), escape(why));
        }
        sections.push(Section { id: "failed", title: "What failed", body });
    }
    sections.push(Section { id: "cases", title: "Cases", body: cases(run) });
    let pictures: String =
        run.cases.iter().filter(|case| !case.evidence.is_empty()).map(|case| pictures(case, folder)).collect();
    if !pictures.is_empty() {
        sections.push(Section { id: "pictures", title: "Pictures", body: pictures });
    }
    sections.push(Section { id: "run", title: "This run", body: about(run) });
    document(&format!("edge-hil: {}", run.dut), &headline(run), &sections)
}

fn headline(run: &Run) -> String {
    let [passed, failed, skipped] = [Verdict::Passed, Verdict::Failed, Verdict::Skipped].map(|v| run.count(v));
    let mut shown = vec![
        ("Passed", passed.to_string(), format!("of {}", count(passed + failed, "case"))),
        ("Failed", failed.to_string(), String::new()),
        ("Skipped", skipped.to_string(), "the device lacks what they need".into()),
        ("Time", format!("{:.0} s", run.seconds), String::new()),
    ];
    if let Some(seconds) = run.first_class_s {
        shown.push(("First class", format!("{seconds:.1} s"), "from power on".into()));
    }
    let verdict =
        if run.passed() { "Every case that this device can be asked has passed." } else { "Something is wrong." };
    let device = run.device.as_ref().map_or(String::new(), |device| format!("<p>{}</p>\n", isolated(device)));
    format!("{}<p>{verdict}</p>\n{device}", figures(&shown))
}

fn cases(run: &Run) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>case</th><th class=\"text\">verdict</th><th>seconds</th>\
         <th class=\"text\">figures</th></tr></thead><tbody>\n",
    );
    for case in &run.cases {
        let verdict = match (case.verdict, &case.why) {
            (Verdict::Passed, _) => "passed".into(),
            (Verdict::Failed, _) => "<strong>FAILED</strong>".into(),
            (Verdict::Skipped, why) => format!("skipped: {}", escape(why.as_deref().unwrap_or_default())),
        };
        let numbers: Vec<String> = case
            .figures
            .iter()
            .map(|f| escape(format!("{}: {} {}", f.name, short(f.value), f.unit).trim_end()))
            .collect();
        let _ = writeln!(
            out,
            "<tr><td class=\"text\">{}<br><small>{}</small></td><td class=\"text\">{verdict}</td><td>{:.1}</td>\
             <td class=\"text\">{}</td></tr>",
            isolated(&case.name),
            escape(&case.about),
            case.seconds,
            numbers.join("<br>")
        );
    }
    out + "</tbody></table></div>\n"
}

fn pictures(case: &Outcome, folder: &Path) -> String {
    let mut out = format!("<h3>{}</h3>\n<div class=\"plots\">\n", isolated(&case.name));
    for evidence in &case.evidence {
        let shown = match picture(evidence, folder) {
            Ok(jpeg) => format!(
                "<img src=\"data:image/jpeg;base64,{}\" style=\"max-width:100%\" alt=\"{}\">",
                STANDARD.encode(jpeg),
                escape(&evidence.caption)
            ),
            Err(why) => format!("<p class=\"note\">{} can't be shown: {}</p>", escape(&evidence.file), escape(&why)),
        };
        let _ = writeln!(out, "<figure>{shown}<figcaption>{}</figcaption></figure>", isolated(&evidence.caption));
    }
    out + "</div>\n"
}

/// A small JPEG of it.
fn picture(evidence: &Evidence, folder: &Path) -> Result<Vec<u8>, String> {
    let file = Path::new(&evidence.file);
    // What is asked for lies in the folder of the run, whoever wrote last.json.
    if !file.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err("it lies elsewhere".into());
    }
    let picture = edge_vision::load(&folder.join(file), &DecodeOptions::default()).map_err(|e| e.to_string())?;
    let width = picture.width().min(WIDTH);
    let height =
        (u64::from(picture.height()) * u64::from(width) / u64::from(picture.width())).clamp(1, 4 * u64::from(WIDTH));
    let (policy, interpolation) = (ResizePolicy::Squash, Interpolation::Bilinear);
    let spec = ResizeSpec { width, height: height as u32, policy, interpolation };
    let mut resizer = Resizer::new(spec).map_err(|e| e.to_string())?;
    encode(resizer.resize(&picture).map_err(|e| e.to_string())?)
}

fn about(run: &Run) -> String {
    let mut out = format!("<p>Begun at {}", escape(&run.started));
    if run.long {
        out += ", with the cases that take long";
    }
    if run.retries > 0 {
        let _ = write!(out, "; {} stalled and tried again", count(run.retries as usize, "start"));
    }
    let _ =
        writeln!(out, ".</p>\n<p>The same again, chance included:</p>\n<pre>edge-hil run --seed {} …</pre>", run.seed);
    out
}
