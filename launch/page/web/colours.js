// Colour maps as 256 RGBA entries for levels 0..255; level 0 is an unknown pixel and stays transparent.
// They are curves in OKLab (B. Ottosson, 2020), so equal steps look equally large.

const gamma = (v) => 255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055);

function fromOklab(lightness, a, b) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((v) => gamma(Math.min(Math.max(v, 0), 1)));
}

function table(colourAt) {
  const entries = new Uint8ClampedArray(4 * 256);
  for (let level = 1; level < 256; level++) entries.set([...colourAt((level - 1) / 254), 255], 4 * level);
  return entries;
}

// Lightness rises evenly while the hue turns from one end to the other.
const sequential = (fromHue, toHue, chroma) => table((t) => {
  const hue = (fromHue + (toHue - fromHue) * t) * (Math.PI / 180);
  const c = chroma * Math.sin(Math.PI * (0.12 + 0.8 * t));
  return fromOklab(0.2 + 0.74 * t, c * Math.cos(hue), c * Math.sin(hue));
});

// Bright where the phase is zero, dark at half a turn, warm on one side and cold on the other.
const cyclic = table((t) => {
  const angle = 2 * Math.PI * (t - 0.5);
  const tint = Math.sin(angle);
  const [a, b] = tint > 0 ? [0.115 * tint, 0.1 * tint] : [-0.01 * -tint, -0.15 * -tint];
  return fromOklab(0.6 + 0.32 * Math.cos(angle), a, b);
});

const source = table(() => [0, 0, 0]);
source.set([0xc9, 0x8f, 0x45, 255], 4);
source.set([0x45, 0xa8, 0xa8, 255], 8);

const TABLES = {
  amplitude: table((t) => [255 * t, 255 * t, 255 * t]),
  phase: sequential(285, 105, 0.092),
  sigma: sequential(15, 95, 0.15),
  photons: sequential(275, 195, 0.09),
  source,
};

export const coloursOf = (map) => (map.is_cyclic ? cyclic : TABLES[map.name]);
