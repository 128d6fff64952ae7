//! Plots as inline SVG: points or a line over two axes.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 34.0;
/// More points of a line than pixels show nothing more.
const POINTS_LIMIT: usize = 1500;

/// What a plot shows.
pub(super) struct Plot<'a> {
    pub(super) points: &'a [(f64, f64)],
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    /// Joined by a line in the order given, else each a dot.
    pub(super) line: bool,
    pub(super) show_x: fn(f64) -> String,
    pub(super) show_y: fn(f64) -> String,
}

impl Plot<'_> {
    pub(super) fn svg(&self) -> String {
        let step = self.points.len().div_ceil(POINTS_LIMIT).max(1);
        let points: Vec<(f64, f64)> = self.points.iter().copied().step_by(step).collect();
        let most = |of: fn(&(f64, f64)) -> f64| self.points.iter().map(of).fold(0.0, f64::max);
        let (top_x, top_y) = (round_up(most(|point| point.0)), round_up(most(|point| point.1)));
        let x = |value: f64| LEFT + value / top_x * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - value / top_y * (HEIGHT - BOTTOM - TOP);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over {}\">\n",
            super::html::escape(self.y),
            super::html::escape(self.x)
        );
        for fourth in 0..=4 {
            let part = f64::from(fourth) / 4.0;
            let (at_x, at_y) = (x(top_x * part), y(top_y * part));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at_y:.1}\" y2=\"{at_y:.1}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <text class=\"tick\" x=\"{at_x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at_y + 4.0,
                (self.show_y)(top_y * part),
                HEIGHT - BOTTOM + 15.0,
                (self.show_x)(top_x * part),
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 3.0,
            super::html::escape(self.x)
        );
        if self.line {
            let path: Vec<String> = points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
            let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", path.join(" "));
        } else {
            for point in &points {
                let _ = writeln!(
                    svg,
                    "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
                    x(point.0),
                    y(point.1)
                );
            }
        }
        svg + "</svg>\n"
    }
}

/// The next of 1, 2, 4, 5, 8 times a power of ten: four equal steps of it are round too.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let round = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().find(|round| round * power >= value);
    round.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_values_above_what_they_show() {
        assert_eq!([0.0, 0.7, 1.0, 3.0, 41.0, 930.0].map(round_up), [1.0, 0.8, 1.0, 4.0, 50.0, 1000.0]);
    }
}
