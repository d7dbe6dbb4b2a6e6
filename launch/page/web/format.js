// Numbers as people read them.

const WITH_MINUS = (text) => text.replace("-", "−");

// `n` significant digits, without zeros at the end.
export const digits = (value, n = 3) => WITH_MINUS(Number(value.toPrecision(n)).toString());

export const count = (value) => (value === undefined || value === null ? "–" : value.toLocaleString("en"));

export const percent = (share) => `${Math.round(100 * share)} %`;

const inUnit = (size) => (size < 0.9995e-6 ? ["nm", 1e9] : size < 0.9995e-3 ? ["µm", 1e6] : ["mm", 1e3]);

export function length(metres) {
  const [unit, factor] = inUnit(Math.abs(metres));
  return `${digits(metres * factor)} ${unit}`;
}

export function area(width, height) {
  const [unit, factor] = inUnit(Math.max(width, height));
  return `${digits(width * factor)} × ${digits(height * factor)} ${unit}`;
}

const places = (step) => Math.min(Math.max(0, 1 - Math.floor(Math.log10(step > 0 ? step : 1e-3))), 12);

// `value` to the place of the second digit of `step`, the smallest difference that means something.
export const rounded = (value, step) => WITH_MINUS(value.toFixed(places(step)));

// The same without zeros at the end.
export const short = (value, step) => WITH_MINUS(Number(value.toFixed(places(step))).toString());

// Where the motors are with the probe on an absolute object pixel (y, x), in their unit.
export function motorPlace(pixel, { origin, pitch, unit }) {
  const [y, x] = pixel.map((place, axis) => rounded(origin[axis] + pitch[axis] * place, 10 * Math.abs(pitch[axis])));
  return `x ${x}  y ${y} ${unit === "um" ? "µm" : unit}`;
}

// Seconds since 1970 as the time of day here.
export const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString("en-GB");
