//! Charts in SVG. Colours and fonts are those of the page's style.

use std::fmt::Write;

/// The width and the height of a chart in its own units.
const SIZE: [f64; 2] = [720.0, 240.0];
/// The room for the axes' numbers: left, bottom.
const ROOM: [f64; 2] = [64.0, 36.0];

/// A line of a chart.
pub(super) struct Series {
    /// The name in the legend.
    pub(super) name: String,
    /// The points, from left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// The axes of a chart, with the range of each.
pub(super) struct Axes<'a> {
    /// What the chart shows, in a sentence.
    pub(super) title: &'a str,
    /// The unit along x, and along y.
    pub(super) units: [&'a str; 2],
    /// The ends of x.
    pub(super) x: [f64; 2],
    /// The ends of y. Those of a logarithmic axis are above 0.
    pub(super) y: [f64; 2],
    /// Whether y is logarithmic.
    pub(super) is_log: bool,
}

impl Axes<'_> {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let scale = |value: f64| if self.is_log { value.max(self.y[0]).log10() } else { value };
        let part = |value: f64, [low, high]: [f64; 2]| ((value - low) / (high - low)).clamp(0.0, 1.0);
        let across = part(x, self.x);
        let up = part(scale(y), self.y.map(scale));
        (ROOM[0] + across * (SIZE[0] - ROOM[0] - 8.0), (SIZE[1] - ROOM[1]) - up * (SIZE[1] - ROOM[1] - 8.0))
    }

    /// The frame: lines and numbers at round places.
    fn frame(&self, svg: &mut String) {
        for x in round_steps(self.x) {
            let (at, bottom) = self.place((x, self.y[0]));
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{at:.1} {bottom:.1}V8"/><text x="{at:.1}" y="{:.1}" class="mid">{}</text>"#,
                bottom + 14.0,
                number(x)
            );
        }
        let steps = if self.is_log { decades(self.y) } else { round_steps(self.y) };
        for y in steps {
            let (left, at) = self.place((self.x[0], y));
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{left:.1} {at:.1}H{:.1}"/><text x="{:.1}" y="{:.1}" class="end">{}</text>"#,
                SIZE[0] - 8.0,
                left - 4.0,
                at + 4.0,
                number(y)
            );
        }
        let (middle, bottom) = (SIZE[0] / 2.0, SIZE[1] - 4.0);
        let _ = write!(svg, r#"<text x="{middle}" y="{bottom}" class="mid">{}</text>"#, escaped(self.units[0]));
        let _ = write!(
            svg,
            r#"<text x="12" y="{:.1}" class="mid" transform="rotate(-90 12 {0:.1})">{}</text>"#,
            SIZE[1] / 2.0 - ROOM[1] / 2.0,
            escaped(self.units[1])
        );
    }
}

/// A chart of lines, with the name of each.
pub(super) fn lines(axes: &Axes<'_>, series: &[Series]) -> String {
    let mut svg = begun(axes.title, SIZE[1]);
    axes.frame(&mut svg);
    for (number, one) in series.iter().enumerate() {
        let class = number % COLOURS;
        let mut path = String::new();
        for (at, point) in one.points.iter().enumerate() {
            let (x, y) = axes.place(*point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        let _ = write!(svg, r#"<path class="line c{class}" d="{path}"/>"#);
        let y = 20.0 + 15.0 * number as f64;
        let name = escaped(&one.name);
        let _ = write!(svg, r#"<text x="{:.1}" y="{y}" class="end f{class}">{name}</text>"#, SIZE[0] - 12.0);
    }
    svg + END
}

/// The colours that lines have in turn.
pub(super) const COLOURS: usize = 5;

/// A chart of ranges, one beside the other: of each the low, the middle and the high value, and a name.
pub(super) fn ranges(axes: &Axes<'_>, ranges: &[([f64; 3], String)]) -> String {
    let mut svg = begun(axes.title, SIZE[1]);
    axes.frame(&mut svg);
    for (number, ([low, middle, high], name)) in ranges.iter().enumerate() {
        let x = number as f64 + 0.5;
        let [(x, from), (_, to), (_, dot)] = [*low, *high, *middle].map(|y| axes.place((x, y)));
        let _ = write!(
            svg,
            r#"<g><title>{}: {low:.0}, {middle:.0}, {high:.0}</title><path class="line c0" d="M{x:.1} {from:.1}V{to:.1}"/><circle cx="{x:.1}" cy="{dot:.1}" r="2.5" class="f1"/></g>"#,
            escaped(name)
        );
    }
    svg + END
}

/// A bar of a chart: a name, a share from 0 to 1 of the longest, what is written behind it, and how far it spreads.
pub(super) struct Bar {
    /// The name before the bar.
    pub(super) name: String,
    /// The length, as a share of the room.
    pub(super) share: f64,
    /// The shares between which the measurements lie, if there are several.
    pub(super) spread: Option<[f64; 2]>,
    /// The text behind the bar.
    pub(super) text: String,
}

/// Bars below each other.
pub(super) fn bars(title: &str, bars: &[Bar]) -> String {
    const STEP: f64 = 22.0;
    const NAMES: f64 = 260.0;
    const ROOM_FOR_BARS: f64 = 300.0;
    let mut svg = begun(title, STEP * bars.len() as f64 + 8.0);
    for (number, bar) in bars.iter().enumerate() {
        let top = STEP * number as f64 + 4.0;
        let at = |share: f64| NAMES + share.clamp(0.0, 1.0) * ROOM_FOR_BARS;
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" class="end">{}</text><rect class="f0" x="{NAMES}" y="{top:.1}" width="{:.1}" height="14"/><text x="{:.1}" y="{:.1}">{}</text>"#,
            NAMES - 6.0,
            top + 11.0,
            escaped(&bar.name),
            at(bar.share) - NAMES,
            at(bar.spread.map_or(bar.share, |[_, high]| high.max(bar.share))) + 6.0,
            top + 11.0,
            escaped(&bar.text),
        );
        if let Some([low, high]) = bar.spread {
            let _ = write!(svg, r#"<path class="whisker" d="M{:.1} {1:.1}H{2:.1}"/>"#, at(low), top + 7.0, at(high));
        }
    }
    svg + END
}

/// The beginning of a chart: its title is seen, and is the picture's name for who does not see it.
fn begun(title: &str, height: f64) -> String {
    let title = escaped(title);
    format!(
        r#"<figure class="chart"><figcaption>{title}</figcaption><svg role="img" viewBox="0 0 {} {height}" aria-label="{title}">"#,
        SIZE[0]
    )
}

/// The end of a chart.
const END: &str = "</svg></figure>";

/// Text as XML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Round numbers within a range: about six of them.
fn round_steps([low, high]: [f64; 2]) -> Vec<f64> {
    let rough = ((high - low) / 6.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step).ceil();
    (0..12).map(|n| (first + f64::from(n)) * step).take_while(|at| *at <= high).collect()
}

/// The powers of ten within a range.
fn decades([low, high]: [f64; 2]) -> Vec<f64> {
    (-12..16).map(|power| 10f64.powi(power)).filter(|at| (low..=high).contains(at)).collect()
}

/// A number of an axis, short.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        large if large >= 1e9 => format!("{:.0} G", value / 1e9),
        large if large >= 1e6 => format!("{:.0} M", value / 1e6),
        large if large >= 1e4 => format!("{:.0} k", value / 1e3),
        small if small < 0.01 => format!("{value:e}"),
        // Three decimals are more than a step has; the steps' sums are off by a rounding.
        _ => format!("{}", (value * 1000.0).round() / 1000.0).replace('-', "−"),
    }
}
