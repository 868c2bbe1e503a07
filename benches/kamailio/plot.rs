//! BENCHMARKS.svg: the figures that matter most, side by side.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::{Curve, Section, Table};
use crate::samples::number;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Outcome = Result<(), Box<dyn Error>>;

const OURS: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
const OTHERS: RGBColor = RGBColor(0xb0, 0xb4, 0xba);
const COLOURS: [RGBColor; 4] = [
    OURS,
    RGBColor(0xc4, 0x4e, 0x52),
    RGBColor(0x4c, 0x72, 0xb0),
    RGBColor(0xdd, 0x9a, 0x3a),
];
/// Height of one bar with its space.
const BAR: u32 = 26;
const WIDTH: u32 = 960;

/// Draws all tables that are meant for the plot, and the curves.
pub fn draw(path: &Path, sections: &[Section]) -> Outcome {
    let wanted = [
        "100,000 listed, the packet's source",
        "100,000 listed, random addresses",
        "what is done with the packet",
        "highest rate without a loss",
        "memory of an entry",
        "a ban",
    ];
    let tables: Vec<&Table> = wanted
        .iter()
        .filter_map(|title| {
            sections
                .iter()
                .flat_map(|s| &s.tables)
                .find(|t| t.title == *title)
        })
        .collect();
    let curves = sections.iter().find(|section| !section.curves.is_empty());
    let heights: Vec<u32> = tables
        .iter()
        .map(|table| 50 + BAR * table.rows.len() as u32)
        .collect();
    let curve_height = if curves.is_some() { 320 } else { 0 };
    let height = heights.iter().sum::<u32>() + curve_height;
    let root = SVGBackend::new(path, (WIDTH, height.max(60))).into_drawing_area();
    root.fill(&WHITE)?;
    let mut rest = root.clone();
    for (table, height) in tables.iter().zip(heights) {
        let (area, below) = rest.split_vertically(height);
        bars(&area, table)?;
        rest = below;
    }
    if let Some(section) = curves {
        lines(&rest, &section.curves)?;
    }
    root.present()?;
    Ok(())
}

/// Horizontal bars with their figures; lengths on a logarithmic scale where they differ much.
fn bars(area: &Area, table: &Table) -> Outcome {
    let title = format!("{} ({})", table.title, table.unit);
    area.draw(&Text::new(title, (12, 12), ("sans-serif", 17).into_font()))?;
    let values: Vec<f64> = table.rows.iter().map(|row| row.1.median()).collect();
    let most = values
        .iter()
        .copied()
        .filter(|v| v.is_finite())
        .fold(f64::MIN_POSITIVE, f64::max);
    let least = values
        .iter()
        .copied()
        .filter(|v| *v > 0.0)
        .fold(most, f64::min);
    let logarithmic = most / least > 100.0;
    let (left, room) = (430, f64::from(WIDTH) - 430.0 - 190.0);
    for (place, ((name, _), value)) in table.rows.iter().zip(&values).enumerate() {
        let top = 40 + place as i32 * BAR as i32;
        let share = if logarithmic {
            ((value / least * 2.0).ln() / (most / least * 2.0).ln()).max(0.0)
        } else {
            (value / most).max(0.0)
        };
        let colour = if name.contains("apiban:")
            || name.contains("apiban_")
            || name.starts_with("apiban,")
        {
            OURS
        } else {
            OTHERS
        };
        let right = left + (share * room).max(1.0) as i32;
        area.draw(&Rectangle::new(
            [(left, top), (right, top + 17)],
            colour.filled(),
        ))?;
        let font = ("sans-serif", 13).into_font();
        area.draw(&Text::new(
            name.replace('`', ""),
            (12, top + 2),
            font.clone(),
        ))?;
        let scale = if logarithmic { " (log scale)" } else { "" };
        area.draw(&Text::new(
            format!("{}{scale}", number(*value)),
            (right + 6, top + 2),
            font,
        ))?;
    }
    Ok(())
}

/// Addresses over time, time on a logarithmic scale.
fn lines(area: &Area, curves: &[Curve]) -> Outcome {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let longest = points().map(|point| point.0).fold(10.0, f64::max);
    let most = points().map(|point| point.1).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(
            "addresses that protect, after a cold start (seconds, log scale)",
            ("sans-serif", 17),
        )
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d((0.1..longest * 1.1).log_scale(), 0.0..most * 1.08)?;
    chart
        .configure_mesh()
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let mut steps: Vec<(f64, f64)> = Vec::new();
        let mut last = 0.0;
        for &(at, count) in &curve.points {
            let at = at.max(0.1);
            // What holds until then, and from then on.
            steps.push((at, last));
            steps.push((at, count));
            last = count;
        }
        steps.push((longest, last));
        chart
            .draw_series(LineSeries::new(steps, colour.stroke_width(2)))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(OTHERS)
        .draw()?;
    Ok(())
}
