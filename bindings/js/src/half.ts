/** Read IEEE 754 binary16, for which not every engine has an array. */

/** Return the numbers whose 16 bits these are. */
export function floatsOfHalves(halves: Uint16Array): Float32Array {
  const floats = new Float32Array(halves.length);
  for (let place = 0; place < halves.length; place++) floats[place] = floatOfHalf(halves[place]);
  return floats;
}

function floatOfHalf(half: number): number {
  const [sign, exponent, fraction] = [half & 0x8000 ? -1 : 1, (half >> 10) & 31, half & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}
