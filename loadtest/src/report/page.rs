//! A report as one page of HTML that needs nothing else: no script, no file beside it, no network.

use std::fmt::Write as _;

use super::{
    PhaseReport, Report,
    plot::{Axis, Chart, Line, escape, number},
};
use crate::load::{Figure, Outcome, Step};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2329; --soft: #6b7680; --line: #d8dde2; --paper: #fff; --bad: #c0392b; --good: #23854a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #94a0ab; --line: #39424b; --paper: #15191d; --bad: #ff7a6b; --good: #5ecb88; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 860px; margin: 2em auto; padding: 0 1em; }
h1 { margin-bottom: 0; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
th, td { text-align: right; padding: .25em .6em; border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; }
.missed { color: var(--bad); font-weight: 600; } .met { color: var(--good); }
figure { margin: 1.4em 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
svg text { font-size: 11px; fill: var(--soft); } .end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--line); } .mark { stroke: var(--soft); stroke-dasharray: 3 3; } .line { fill: none; stroke-width: 1.6; stroke: currentColor; }
.key { font-weight: 400; margin-left: .8em; } .key::before { content: \"\\2014\\00a0\"; }
.c0 { color: #2f7ed8; } .c1 { color: #d9822b; } .c2 { color: #b83280; } .c3 { color: #2c9c6a; } .c4 { color: #7b61c9; } .c5 { color: #8a8f2b; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .8em; }
";

/// A value of one step, where there is one.
type OfStep = fn(&Step) -> Option<f64>;

/// A distribution of times, where there is one: so many ms or less took that share.
type Curve = fn(&Outcome) -> Option<&[(f64, f64)]>;

impl Report {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let name = escape(&self.scenario.name);
        let sections = [self.budgets_table(), self.figures_table(), self.charts(), self.environment_table()].join("\n");
        let scenario = escape(&self.scenario.to_string());
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}</title>\n\
             <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
             <h1>{name}</h1>\n<p class=\"soft\">{}</p>\n{sections}\n<h2>Scenario</h2>\n<pre>{scenario}</pre>\n</body></html>\n",
            escape(&self.scenario.description)
        )
    }

    fn budgets_table(&self) -> String {
        if self.budgets.is_empty() {
            return String::new();
        }
        let mut text =
            "<h2>Budgets</h2>\n<table><tr><th>phase</th><th>figure</th><th>limit</th><th>measured</th><th></th></tr>\n"
                .to_owned();
        for budget in &self.budgets {
            let value = budget.value.map_or_else(|| "not measured".to_owned(), number);
            let verdict = if budget.met { "met" } else { "missed" };
            // Writing into a String cannot fail.
            let _written = writeln!(
                text,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{value}</td><td class=\"{verdict}\">{verdict}</td></tr>",
                escape(&budget.phase),
                budget.figure,
                number(budget.limit)
            );
        }
        text + "</table>"
    }

    fn figures_table(&self) -> String {
        let heads: String = self.phases.iter().map(|phase| format!("<th>{}</th>", escape(&phase.name))).collect();
        let mut text = format!("<h2>Figures</h2>\n<div class=\"wide\"><table><tr><th></th>{heads}</tr>\n");
        for figure in Figure::all() {
            if self.phases.iter().all(|phase| !phase.figures.contains_key(&figure)) {
                continue;
            }
            let value = |phase: &PhaseReport| phase.figures.get(&figure).copied().map_or_else(String::new, number);
            let values: String = self.phases.iter().map(|phase| format!("<td>{}</td>", value(phase))).collect();
            text += &format!(
                "<tr><td>{} <span class=\"soft\">{figure}</span></td>{values}</tr>\n",
                escape(figure.meaning())
            );
        }
        text + "</table></div>"
    }

    fn charts(&self) -> String {
        let marks = self.marks();
        let of_time = |title, lines: &[(&str, OfStep)]| {
            let lines = lines.iter().map(|(name, of)| self.line(name, *of)).collect();
            Chart { title, x_label: "measured time, s", axis: Axis::Linear, lines, marks: &marks }.svg()
        };
        [
            "<h2>Over time</h2>\n".to_owned(),
            of_time(
                "Latency, ms",
                &[
                    ("p50", |step| heard(step, step.p50_ms)),
                    ("p95", |step| heard(step, step.p95_ms)),
                    ("p99", |step| heard(step, step.p99_ms)),
                ],
            ),
            of_time("Deliveries a second", &[("delivered", |step| per_s(step, step.delivered))]),
            of_time("Lost, % of what was sent then", &[("lost", lost_percent)]),
            of_time("Joins a second", &[("joins", |step| per_s(step, step.joins))]),
            of_time("CPU of the nodes, cores", &[("cores", |step| step.cpu_cores)]),
            of_time(
                "Memory of the nodes, MiB",
                &[("resident", |step| step.memory_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)))],
            ),
            "<h2>Distribution of latency</h2>\n".to_owned(),
            self.distribution("% of frames by UDP that took at most so long", |outcome| {
                Some(&outcome.latency_distribution)
            }),
            self.distribution("% of deliveries of chat that took at most so long", |outcome| {
                Some(&outcome.chat.as_ref()?.latency_distribution)
            }),
        ]
        .concat()
    }

    /// When each phase begins on the page's time axis.
    fn offsets(&self) -> impl Iterator<Item = (f64, &PhaseReport)> {
        self.phases.iter().scan(0.0, |at_s, phase| {
            let begins = *at_s;
            *at_s += phase.outcome.seconds;
            Some((begins, phase))
        })
    }

    /// Phases and faults.
    fn marks(&self) -> Vec<(f64, String)> {
        let of_phase = |(begins, phase): (f64, &PhaseReport)| {
            let faults = phase.outcome.faults.iter().flat_map(|faults| &faults.faults);
            let faults = faults.map(move |fault| (begins + fault.at_s, format!("{} {}", fault.action, fault.target)));
            std::iter::once((begins, phase.name.clone())).chain(faults).collect::<Vec<_>>()
        };
        self.offsets().flat_map(of_phase).collect()
    }

    fn line(&self, name: &str, of: OfStep) -> Line {
        let of_phase = |(begins, phase): (f64, &PhaseReport)| {
            let middle = |step: &Step| begins + step.at_s + step.seconds / 2.0;
            let points = phase.outcome.steps.iter().map(|step| Some((middle(step), of(step)?)));
            points.chain([None]).collect::<Vec<_>>()
        };
        Line { name: name.to_owned(), points: self.offsets().flat_map(of_phase).collect() }
    }

    fn distribution(&self, title: &str, of: Curve) -> String {
        let line = |phase: &PhaseReport| {
            let points = of(&phase.outcome)?.iter().map(|(ms, share)| Some((*ms, share * 100.0))).collect();
            Some(Line { name: phase.name.clone(), points })
        };
        let lines: Vec<Line> = self.phases.iter().filter_map(line).collect();
        if lines.is_empty() {
            return String::new();
        }
        Chart { title, x_label: "latency, ms", axis: Axis::Log, lines, marks: &[] }.svg()
    }

    fn environment_table(&self) -> String {
        let unknown = || "not known".to_owned();
        let here = &self.environment;
        let gibibytes = |bytes: u64| format!("{} GiB", number(bytes as f64 / f64::from(1 << 30)));
        let subject = self.phases.first().map_or_else(unknown, |phase| phase.outcome.subject.clone());
        let lateness = self.phases.iter().map(|phase| phase.outcome.client.lateness.p99_ms).fold(0.0, f64::max);
        let rows = [
            ("measured", subject),
            ("by", format!("antiphon-loadtest {}", self.version)),
            ("at, seconds since 1970", self.time_unix_s.to_string()),
            ("processors", format!("{} × {}", here.cpus, here.cpu_model.clone().unwrap_or_else(unknown))),
            ("memory", here.memory_bytes.map_or_else(unknown, gibibytes)),
            ("kernel", here.kernel.clone().unwrap_or_else(unknown)),
            ("load client: frames sent after their time, p99, worst phase", format!("{} ms", number(lateness))),
        ];
        let rows: String =
            rows.iter().map(|(name, value)| format!("<tr><td>{name}</td><td>{}</td></tr>\n", escape(value))).collect();
        format!("<h2>Environment</h2>\n<table>{rows}</table>")
    }
}

/// A latency, where something was heard.
fn heard(step: &Step, ms: f64) -> Option<f64> {
    (step.delivered > 0).then_some(ms)
}

fn per_s(step: &Step, count: u64) -> Option<f64> {
    Some(count as f64 / step.seconds)
}

fn lost_percent(step: &Step) -> Option<f64> {
    (step.expected > 0).then(|| step.expected.saturating_sub(step.delivered) as f64 / step.expected as f64 * 100.0)
}
