//! Curves as SVG.

use std::path::Path;

use plotters::prelude::*;

/// Points from left to right.
pub struct Curve {
    name: &'static str,
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    pub fn named(name: &'static str) -> Self {
        Self { name, points: Vec::new() }
    }
}

const SIZE: (u32, u32) = (680, 360);
const COLOURS: [RGBColor; 3] = [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44)];

/// Microseconds an event over something that is counted, which has a logarithmic axis.
pub fn draw(file: &Path, title: &str, axis: &str, curves: &[Curve]) -> anyhow::Result<()> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let least = all().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let (right, top) = all().fold((least, 0.0), |most: (f64, f64), point| (most.0.max(point.0), most.1.max(point.1)));
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((least..right * 1.1).log_scale(), 0.0..top * 1.1)?;
    chart.configure_mesh().x_desc(axis).y_desc("CPU, µs an event").draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_axes_and_curves() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.svg");
        let curve = Curve { points: vec![(1.0, 2.0), (100.0, 3.5)], ..Curve::named("metrics.merge") };
        draw(&file, "Cost by keys", "keys", &[curve]).unwrap();
        let svg = std::fs::read_to_string(file).unwrap();
        for text in ["Cost by keys", "keys", "metrics.merge", "polyline"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
