//! Line charts as SVG, with nothing but what a page holds itself.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 30.0;

/// Colours of lines, told apart by the page's style sheet.
const COLOURS: usize = 6;

/// One line.
pub(super) struct Line {
    pub(super) name: String,
    /// Between points that are not there the line is broken.
    pub(super) points: Vec<Option<(f64, f64)>>,
}

/// How the horizontal axis is divided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Linear,
    /// By powers of ten.
    Log,
}

/// A chart.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) axis: Axis,
    pub(super) lines: Vec<Line>,
    /// Named places on the horizontal axis.
    pub(super) marks: &'a [(f64, String)],
}

/// Text that is safe between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// From a range of values to a range of the picture.
struct Range {
    from: f64,
    to: f64,
    axis: Axis,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>, axis: Axis, from_zero: bool) -> Option<Self> {
        let (mut from, mut to) = (f64::MAX, f64::MIN);
        values.for_each(|value| (from, to) = (from.min(value), to.max(value)));
        if from > to {
            return None;
        }
        match axis {
            Axis::Linear => {
                from = if from_zero { from.min(0.0) } else { from };
                to = if to > from { to } else { from + 1.0 };
            }
            Axis::Log => {
                // A hundredth of the unit is as near to nothing as it gets.
                from = 10_f64.powf(from.max(0.01).log10().floor());
                to = 10_f64.powf(to.max(0.1).log10().ceil()).max(from * 10.0);
            }
        }
        Some(Self { from, to, axis })
    }

    /// Where a value lies, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.axis {
            Axis::Linear => (value - self.from) / (self.to - self.from),
            Axis::Log => (value.max(self.from) / self.from).log10() / (self.to / self.from).log10(),
        }
    }

    /// Values to write beside the axis: 1, 2 or 5 times a power of ten apart.
    fn ticks(&self) -> Vec<f64> {
        match self.axis {
            Axis::Linear => {
                let rough = (self.to - self.from) / 5.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
                let step = step.unwrap_or(rough);
                let first = (self.from / step).ceil() as i64;
                (first..=(self.to / step).floor() as i64).map(|count| count as f64 * step).collect()
            }
            Axis::Log => {
                let powers = self.from.log10().round() as i32..=self.to.log10().round() as i32;
                powers.map(|power| 10_f64.powi(power)).collect()
            }
        }
    }
}

impl Chart<'_> {
    /// The figure as SVG; nothing when there is nothing to draw.
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().flatten());
        let marked = self.marks.iter().map(|(place, _)| *place).filter(|_| points().next().is_some());
        let x = Range::of(points().map(|point| point.0).chain(marked), self.axis, false);
        let y = Range::of(points().map(|point| point.1), Axis::Linear, true);
        let (Some(x), Some(y)) = (x, y) else { return String::new() };
        let title = escape(self.title);
        let mut svg = format!(
            "<figure><figcaption>{title}{}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n",
            self.legend()
        );
        self.grid(&mut svg, &x, &y);
        for (number, line) in self.lines.iter().enumerate() {
            path(&mut svg, line, number % COLOURS, &x, &y);
        }
        svg + "</svg></figure>\n"
    }

    fn legend(&self) -> String {
        let entry = |(number, line): (usize, &Line)| {
            format!(" <span class=\"key c{}\">{}</span>", number % COLOURS, escape(&line.name))
        };
        self.lines.iter().enumerate().map(entry).collect()
    }

    fn grid(&self, svg: &mut String, x: &Range, y: &Range) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        // Writing into a String cannot fail.
        for tick in y.ticks() {
            let at = y_at(y, tick);
            let _written = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                number(tick)
            );
        }
        for tick in x.ticks() {
            let at = x_at(x, tick);
            let _written = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/><text class=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 14.0,
                number(tick)
            );
        }
        for (place, name) in self.marks {
            let at = x_at(x, *place);
            let _written = writeln!(
                svg,
                "<path class=\"mark\" d=\"M{at:.1} {TOP}V{bottom}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                at + 3.0,
                TOP - 5.0,
                escape(name)
            );
        }
        let label = escape(self.x_label);
        let _written = writeln!(svg, "<text class=\"end\" x=\"{right}\" y=\"{:.1}\">{label}</text>", HEIGHT - 3.0);
    }
}

fn path(svg: &mut String, line: &Line, colour: usize, x: &Range, y: &Range) {
    let mut pen_up = true;
    let mut data = String::new();
    for point in &line.points {
        let Some((at, value)) = point else {
            pen_up = true;
            continue;
        };
        let letter = if std::mem::replace(&mut pen_up, false) { 'M' } else { 'L' };
        // Writing into a String cannot fail.
        let _written = write!(data, "{letter}{:.1} {:.1}", x_at(x, *at), y_at(y, *value));
    }
    let _written = writeln!(svg, "<path class=\"line c{colour}\" d=\"{data}\"/>");
}

fn x_at(range: &Range, value: f64) -> f64 {
    LEFT + range.place(value) * (WIDTH - LEFT - RIGHT)
}

fn y_at(range: &Range, value: f64) -> f64 {
    HEIGHT - BOTTOM - range.place(value) * (HEIGHT - TOP - BOTTOM)
}

/// A number as short as it can be.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let text = if size >= 100.0 || value == 0.0 {
        format!("{value:.0}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.5}")
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<Option<(f64, f64)>>, axis: Axis) -> String {
        let lines = vec![Line { name: "p99 <ms>".to_owned(), points }];
        Chart { title: "a & b", x_label: "s", axis, lines, marks: &[(1.0, "kill".to_owned())] }.svg()
    }

    #[test]
    fn a_line_is_broken_where_a_point_is_missing() {
        let svg = chart(vec![Some((0.0, 1.0)), Some((1.0, 2.0)), None, Some((3.0, 4.0))], Axis::Linear);
        let line = svg.lines().find(|line| line.contains("class=\"line c0\"")).expect("a line");
        assert_eq!((line.matches('M').count(), line.matches('L').count()), (2, 1));
        assert!(line.contains("748.0 18.0"), "the greatest value is in the upper right corner: {line}");
        assert!(svg.contains("a &amp; b") && svg.contains("p99 &lt;ms&gt;") && svg.contains(">kill<"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing_and_a_constant_still_is() {
        assert_eq!(chart(vec![None], Axis::Linear), "");
        for axis in [Axis::Linear, Axis::Log] {
            let svg = chart(vec![Some((0.0, 0.0)), Some((0.0, 0.0))], axis);
            assert!(svg.contains("class=\"line") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = |from, to, axis| Range { from, to, axis }.ticks();
        assert_eq!(ticks(0.0, 10.0, Axis::Linear), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.1, 100.0, Axis::Log), [0.1, 1.0, 10.0, 100.0]);
        assert!((3..=11).contains(&ticks(0.0, 0.0437, Axis::Linear).len()));
        assert_eq!([0.0, 0.25, 12.5, 1_200.0].map(number), ["0", "0.25", "12.5", "1200"]);
    }
}
