//! The delay against how busy the core is, drawn.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::results::Row;

/// The drawing, and the margins around the plot: left, top, right, bottom. Pixels.
const SIZE: [f64; 2] = [760.0, 420.0];
const MARGINS: [f64; 4] = [64.0, 46.0, 24.0, 56.0];

/// Milliseconds that the axis begins and may end with; its scale is logarithmic.
const DECADES: [i32; 5] = [-1, 0, 1, 2, 3];

/// The budget: at this share of the core, p50 and p99 in milliseconds.
const BUDGET: (f64, [f64; 2]) = (0.7, [0.5, 2.0]);

/// p50 and p99: name and colour.
const LINES: [(&str, &str); 2] = [("p50", "#0b6fb8"), ("p99", "#c2410c")];

/// Writes the drawing.
///
/// # Errors
/// There are fewer than two rows, or the file cannot be written.
pub fn draw(rows: &[Row], tables: u32, file: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(rows.len() >= 2, "a curve needs two numbers of players at least: --players 160,320,640");
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by(|a, b| a.cores().total_cmp(&b.cores()));
    std::fs::write(file, svg(&rows, tables)).with_context(|| file.display().to_string())
}

fn svg(rows: &[&Row], tables: u32) -> String {
    let plot = Plot::of(rows);
    let mut svg = String::new();
    let [width, height] = SIZE;
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="#222">
<title>Added delay against the use of one core</title>
<rect width="{width}" height="{height}" fill="#fff"/>
<text x="{}" y="20" font-size="14" font-weight="bold">Added delay, {tables} tables in spread phases, one shard</text>
<text x="{}" y="36" fill="#555">from the publisher's send call to the player's kernel; numbers are players</text>"##,
        MARGINS[0], MARGINS[0],
    );
    plot.axes(&mut svg);
    for ((name, colour), line) in LINES.iter().zip(0..) {
        let at = |row: &Row| (plot.x(row.cores()), plot.y(row.delay_ms()[line]));
        let points: Vec<String> = rows.iter().map(|row| at(row)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        let _ = writeln!(svg, r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
        for row in rows {
            let (x, y) = at(row);
            let lost = if row.has_losses() { ", packets lost" } else { "" };
            let label = format!("{} players: {name} {:.2} ms{lost}", row.players(), row.delay_ms()[line]);
            let fill = if row.has_losses() { "#fff" } else { colour };
            let _ = writeln!(
                svg,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{fill}" stroke="{colour}"><title>{label}</title></circle>"#
            );
        }
        let (budget_from, budget_to) = (plot.x(0.0), plot.x(BUDGET.0));
        let y = plot.y(BUDGET.1[line]);
        let _ = writeln!(
            svg,
            r#"<line x1="{budget_from:.1}" y1="{y:.1}" x2="{budget_to:.1}" y2="{y:.1}" stroke="{colour}" stroke-dasharray="5 4"/>
<text x="{:.1}" y="{:.1}" fill="{colour}">{name} budget: {} ms up to {:.0} %</text>"#,
            budget_from + 6.0,
            y - 5.0,
            BUDGET.1[line],
            100.0 * BUDGET.0,
        );
    }
    for row in rows {
        let (x, y) = (plot.x(row.cores()), plot.y(row.delay_ms()[1]));
        let _ = writeln!(svg, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#, y - 9.0, row.players());
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where values lie in the drawing.
struct Plot {
    /// The last decade that is needed.
    end: i32,
}

impl Plot {
    fn of(rows: &[&Row]) -> Self {
        let most = rows.iter().flat_map(|row| row.delay_ms()).fold(BUDGET.1[1], f64::max);
        let last = DECADES[DECADES.len() - 1];
        Self { end: DECADES.into_iter().find(|decade| 10f64.powi(*decade) >= most).unwrap_or(last) }
    }

    fn x(&self, cores: f64) -> f64 {
        MARGINS[0] + cores.clamp(0.0, 1.0) * (SIZE[0] - MARGINS[0] - MARGINS[2])
    }

    fn y(&self, milliseconds: f64) -> f64 {
        let (begin, end) = (f64::from(DECADES[0]), f64::from(self.end));
        let share = (milliseconds.log10().clamp(begin, end) - begin) / (end - begin);
        SIZE[1] - MARGINS[3] - share * (SIZE[1] - MARGINS[1] - MARGINS[3])
    }

    fn axes(&self, svg: &mut String) {
        let ([left, right], [bottom, top]) =
            ([self.x(0.0), self.x(1.0)], [DECADES[0], self.end].map(|decade| self.y(10f64.powi(decade))));
        for tenth in 0..=10 {
            let x = self.x(f64::from(tenth) / 10.0);
            let _ = writeln!(
                svg,
                r##"<line x1="{x:.1}" y1="{top:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="#e5e5e5"/>
<text x="{x:.1}" y="{:.1}" text-anchor="middle">{} %</text>"##,
                bottom + 18.0,
                10 * tenth,
            );
        }
        for decade in DECADES.into_iter().filter(|decade| *decade <= self.end) {
            let milliseconds = 10f64.powi(decade);
            let y = self.y(milliseconds);
            let _ = writeln!(
                svg,
                r##"<line x1="{left:.1}" y1="{y:.1}" x2="{right:.1}" y2="{y:.1}" stroke="#ccc"/>
<text x="{:.1}" y="{:.1}" text-anchor="end">{milliseconds} ms</text>"##,
                left - 8.0,
                y + 4.0,
            );
        }
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">of the node's core, by the kernel's accounts</text>"#,
            (left + right) / 2.0,
            bottom + 40.0,
        );
    }
}
