// Writes avatars of every person as JSON: {name: [svg, ...]}; the face is fixed, the rest varies.
//   node people.mjs people.txt COUNT > people.json     (needs @dicebear/core and the sets used)
import { createAvatar } from '@dicebear/core';
import fs from 'fs';

const OPTIONAL = ['facialHair', 'glasses', 'beard', 'rearHair', 'accessories', 'mask', 'earrings'];
const MOUTHS = {
  personas: { mouth: ['smile', 'frown', 'surprise', 'bigSmile', 'smirk'] },
  'open-peeps': { face: ['smile', 'calm', 'cute', 'driven', 'smileBig', 'blank', 'cheeky', 'serious'] },
};
const [table, count] = process.argv.slice(2);
const out = {};
for (const line of fs.readFileSync(table, 'utf8').split('\n')) {
  if (!line || line.startsWith('#')) continue;
  const [name, set, features] = line.split('|').map((cell) => cell.trim());
  const style = await import(`@dicebear/${set}`);
  const fixed = Object.fromEntries(features.split(' ').map((f) => [f.split('=')[0], [f.split('=')[1]]]));
  const chances = Object.fromEntries(OPTIONAL.map((o) => [`${o}Probability`, o in fixed ? 100 : 0]));
  out[name] = Array.from({ length: Number(count) }, (_, i) =>
    createAvatar(style, { seed: `${name} ${i}`, ...MOUTHS[set], ...chances, ...fixed }).toString());
}
console.log(JSON.stringify(out));
