<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="en_US" sourcelanguage="en">
  <context>
    <name>LTCHM</name>
    <message>
      <source>All files (*)</source>
      <translation>All files (*)</translation>
    </message>
    <message>
      <source>Compressed scenes (*.ltchm)</source>
      <translation>Compressed scenes (*.ltchm)</translation>
    </message>
    <message>
      <source>Compressed scenes (*.ltchm ltchm-manifest.json)</source>
      <translation>Compressed scenes (*.ltchm ltchm-manifest.json)</translation>
    </message>
    <message>
      <source>Device (auto, cpu, cuda, cuda:1); as in the options if empty</source>
      <translation>Device (auto, cpu, cuda, cuda:1); as in the options if empty</translation>
    </message>
    <message>
      <source>Compressed scene</source>
      <translation>Compressed scene</translation>
    </message>
    <message>
      <source>Approximate, by quality</source>
      <translation>Approximate, by quality</translation>
    </message>
    <message>
      <source>No pixel off by more than</source>
      <translation>No pixel off by more than</translation>
    </message>
    <message>
      <source>Lossless</source>
      <translation>Lossless</translation>
    </message>
    <message>
      <source>Compress raster</source>
      <translation>Compress raster</translation>
    </message>
    <message>
      <source>Compresses a raster with a learned codec. CRS, transform, band names, nodata, masks and tags are kept exactly, pixel values approximately: the higher the quality (1 to 100), the closer and the larger. 8 and 16 bit integers and floats, any number of bands.

Where approximately will not do, let no pixel be off by more than a largest error, in the unit of the data, or choose lossless: both make larger files. Class maps and flags need lossless.

A nodata value that you named in the layer's properties, under Transparency, is taken for the whole scene if the raster has none of its own.

Measuring decodes the result and reports the PSNR; it takes about as long as decompressing.

The outputs BYTES, RATIO, BPP (bits per pixel, all bands) and PSNR (mean over bands, in dB) are numbers for models.</source>
      <translation>Compresses a raster with a learned codec. CRS, transform, band names, nodata, masks and tags are kept exactly, pixel values approximately: the higher the quality (1 to 100), the closer and the larger. 8 and 16 bit integers and floats, any number of bands.

Where approximately will not do, let no pixel be off by more than a largest error, in the unit of the data, or choose lossless: both make larger files. Class maps and flags need lossless.

A nodata value that you named in the layer's properties, under Transparency, is taken for the whole scene if the raster has none of its own.

Measuring decodes the result and reports the PSNR; it takes about as long as decompressing.

The outputs BYTES, RATIO, BPP (bits per pixel, all bands) and PSNR (mean over bands, in dB) are numbers for models.</translation>
    </message>
    <message>
      <source>Largest error, if that is guaranteed</source>
      <translation>Largest error, if that is guaranteed</translation>
    </message>
    <message>
      <source>Raster layer</source>
      <translation>Raster layer</translation>
    </message>
    <message>
      <source>Quality (1 to 100)</source>
      <translation>Quality (1 to 100)</translation>
    </message>
    <message>
      <source>Guarantee</source>
      <translation>Guarantee</translation>
    </message>
    <message>
      <source>Measure what was lost</source>
      <translation>Measure what was lost</translation>
    </message>
    <message>
      <source>Size in bytes</source>
      <translation>Size in bytes</translation>
    </message>
    <message>
      <source>Compression ratio</source>
      <translation>Compression ratio</translation>
    </message>
    <message>
      <source>Bits per pixel</source>
      <translation>Bits per pixel</translation>
    </message>
    <message>
      <source>Mean PSNR in dB</source>
      <translation>Mean PSNR in dB</translation>
    </message>
    <message>
      <source>{size}, {ratio} times smaller than its pixels, {bpp} bits per pixel</source>
      <translation>{size}, {ratio} times smaller than its pixels, {bpp} bits per pixel</translation>
    </message>
    <message>
      <source>{layer} is not available: its source cannot be opened.</source>
      <translation>{layer} is not available: its source cannot be opened.</translation>
    </message>
    <message>
      <source>{layer} is a compressed scene already; compressing it again would only lose quality.</source>
      <translation>{layer} is a compressed scene already; compressing it again would only lose quality.</translation>
    </message>
    <message>
      <source>{layer} does not come from a file ({provider}). Export it as a GeoTIFF first.</source>
      <translation>{layer} does not come from a file ({provider}). Export it as a GeoTIFF first.</translation>
    </message>
    <message>
      <source>{scene} is shown by a layer. Remove the layer, or choose another name.</source>
      <translation>{scene} is shown by a layer. Remove the layer, or choose another name.</translation>
    </message>
    <message>
      <source>band {band}: {psnr}, largest error {error}</source>
      <translation>band {band}: {psnr}, largest error {error}</translation>
    </message>
    <message>
      <source>Decompress to GeoTIFF</source>
      <translation>Decompress to GeoTIFF</translation>
    </message>
    <message>
      <source>Restores a compressed scene, or the part of it inside an extent, as a GeoTIFF with everything the source had: CRS, transform, band names, nodata, masks, tags.

Bands are numbers from 1 such as 4,3,2; empty means all. Overview 0 is full resolution; how many smaller ones there are, "Compressed scene information" tells.</source>
      <translation>Restores a compressed scene, or the part of it inside an extent, as a GeoTIFF with everything the source had: CRS, transform, band names, nodata, masks, tags.

Bands are numbers from 1 such as 4,3,2; empty means all. Overview 0 is full resolution; how many smaller ones there are, "Compressed scene information" tells.</translation>
    </message>
    <message>
      <source>Bands, such as 4,3,2</source>
      <translation>Bands, such as 4,3,2</translation>
    </message>
    <message>
      <source>Only this extent</source>
      <translation>Only this extent</translation>
    </message>
    <message>
      <source>Overview (0: full resolution)</source>
      <translation>Overview (0: full resolution)</translation>
    </message>
    <message>
      <source>Put nodata in place of damaged tiles instead of stopping</source>
      <translation>Put nodata in place of damaged tiles instead of stopping</translation>
    </message>
    <message>
      <source>Restored raster</source>
      <translation>Restored raster</translation>
    </message>
    <message>
      <source>Damaged tiles</source>
      <translation>Damaged tiles</translation>
    </message>
    <message>
      <source>The scene has no position on the map: leave the extent empty.</source>
      <translation>The scene has no position on the map: leave the extent empty.</translation>
    </message>
    <message>
      <source>{bands} is not a list of band numbers such as 4,3,2.</source>
      <translation>{bands} is not a list of band numbers such as 4,3,2.</translation>
    </message>
    <message>
      <source>The scene has no overview {level}.</source>
      <translation>The scene has no overview {level}.</translation>
    </message>
    <message>
      <source>Compressed scene information</source>
      <translation>Compressed scene information</translation>
    </message>
    <message>
      <source>Tells size, bands, CRS, quality and weights of a compressed scene. Decodes no pixel.</source>
      <translation>Tells size, bands, CRS, quality and weights of a compressed scene. Decodes no pixel.</translation>
    </message>
    <message>
      <source>Raster</source>
      <translation>Raster</translation>
    </message>
    <message>
      <source>Size</source>
      <translation>Size</translation>
    </message>
    <message>
      <source>Rate</source>
      <translation>Rate</translation>
    </message>
    <message>
      <source>CRS</source>
      <translation>CRS</translation>
    </message>
    <message>
      <source>Weights</source>
      <translation>Weights</translation>
    </message>
    <message>
      <source>Made by</source>
      <translation>Made by</translation>
    </message>
    <message>
      <source>Quality</source>
      <translation>Quality</translation>
    </message>
    <message>
      <source>none</source>
      <translation>none</translation>
    </message>
    <message>
      <source>Report</source>
      <translation>Report</translation>
    </message>
    <message>
      <source>HTML files (*.html)</source>
      <translation>HTML files (*.html)</translation>
    </message>
    <message>
      <source>Width in pixels</source>
      <translation>Width in pixels</translation>
    </message>
    <message>
      <source>Height in pixels</source>
      <translation>Height in pixels</translation>
    </message>
    <message>
      <source>Number of bands</source>
      <translation>Number of bands</translation>
    </message>
    <message>
      <source>Data type</source>
      <translation>Data type</translation>
    </message>
    <message>
      <source>{width} x {height} pixels, {bands} bands, {dtype}</source>
      <translation>{width} x {height} pixels, {bands} bands, {dtype}</translation>
    </message>
    <message>
      <source>{size}, {ratio} times smaller than its pixels</source>
      <translation>{size}, {ratio} times smaller than its pixels</translation>
    </message>
    <message>
      <source>{bpp} bits per pixel</source>
      <translation>{bpp} bits per pixel</translation>
    </message>
    <message>
      <source>Open compressed scene</source>
      <translation>Open compressed scene</translation>
    </message>
    <message>
      <source>Opens a compressed scene as a raster layer. Pixels are decoded when something reads them, by an engine that runs until QGIS ends; nothing is written to disk. In a model, the output goes wherever a raster layer does.</source>
      <translation>Opens a compressed scene as a raster layer. Pixels are decoded when something reads them, by an engine that runs until QGIS ends; nothing is written to disk. In a model, the output goes wherever a raster layer does.</translation>
    </message>
    <message>
      <source>Layer</source>
      <translation>Layer</translation>
    </message>
    <message>
      <source>Address</source>
      <translation>Address</translation>
    </message>
    <message>
      <source>Small</source>
      <translation>Small</translation>
    </message>
    <message>
      <source>Balanced</source>
      <translation>Balanced</translation>
    </message>
    <message>
      <source>Fine</source>
      <translation>Fine</translation>
    </message>
    <message>
      <source>Compress layer</source>
      <translation>Compress layer</translation>
    </message>
    <message>
      <source>Open the compressed scene when it is done</source>
      <translation>Open the compressed scene when it is done</translation>
    </message>
    <message>
      <source>Estimate</source>
      <translation>Estimate</translation>
    </message>
    <message>
      <source>Save as</source>
      <translation>Save as</translation>
    </message>
    <message>
      <source>Compress</source>
      <translation>Compress</translation>
    </message>
    <message>
      <source>In the unit of the data, for every band.</source>
      <translation>In the unit of the data, for every band.</translation>
    </message>
    <message>
      <source>The higher, the closer to the original and the larger.</source>
      <translation>The higher, the closer to the original and the larger.</translation>
    </message>
    <message>
      <source>The project has no raster layer.</source>
      <translation>The project has no raster layer.</translation>
    </message>
    <message>
      <source>Preview of compression</source>
      <translation>Preview of compression</translation>
    </message>
    <message>
      <source>Estimating...</source>
      <translation>Estimating...</translation>
    </message>
    <message>
      <source>not available</source>
      <translation>not available</translation>
    </message>
    <message>
      <source>no CRS</source>
      <translation>no CRS</translation>
    </message>
    <message>
      <source>Previews cannot be stored in {folder}: {reason}</source>
      <translation>Previews cannot be stored in {folder}: {reason}</translation>
    </message>
    <message>
      <source>{scene} exists already. Replace it when the new one is complete?</source>
      <translation>{scene} exists already. Replace it when the new one is complete?</translation>
    </message>
    <message>
      <source>about {size} ({low} to {high}), {ratio} times smaller than its pixels</source>
      <translation>about {size} ({low} to {high}), {ratio} times smaller than its pixels</translation>
    </message>
    <message>
      <source>{width} x {height} pixels</source>
      <translation>{width} x {height} pixels</translation>
    </message>
    <message>
      <source>{count} bands</source>
      <translation>{count} bands</translation>
    </message>
    <message>
      <source>Original</source>
      <translation>Original</translation>
    </message>
    <message>
      <source>Restored</source>
      <translation>Restored</translation>
    </message>
    <message>
      <source>nodata {values}</source>
      <translation>nodata {values}</translation>
    </message>
    <message>
      <source>the source file has {size}</source>
      <translation>the source file has {size}</translation>
    </message>
    <message>
      <source>{psnr} in the preview</source>
      <translation>{psnr} in the preview</translation>
    </message>
    <message>
      <source>Difference, {times} times</source>
      <translation>Difference, {times} times</translation>
    </message>
    <message>
      <source>Open the options</source>
      <translation>Open the options</translation>
    </message>
    <message>
      <source>Wheel: zoom. Drag: move. Double click: show all.</source>
      <translation>Wheel: zoom. Drag: move. Double click: show all.</translation>
    </message>
    <message>
      <source>The LTCHM engine was killed, perhaps because memory ran out. Nothing was written.</source>
      <translation>The LTCHM engine was killed, perhaps because memory ran out. Nothing was written.</translation>
    </message>
    <message>
      <source>The LTCHM engine is not installed yet. It has a Python of its own (3.11 or newer). Type in a terminal:
  {creator} -m venv {folder}
{install}
QGIS finds it there. Is it somewhere else? Say so under Settings &gt; Options &gt; LTCHM.</source>
      <translation>The LTCHM engine is not installed yet. It has a Python of its own (3.11 or newer). Type in a terminal:
  {creator} -m venv {folder}
{install}
QGIS finds it there. Is it somewhere else? Say so under Settings &gt; Options &gt; LTCHM.</translation>
    </message>
    <message>
      <source>In a checkout of ltchm_geo:
  {interpreter} -m pip install .</source>
      <translation>In a checkout of ltchm_geo:
  {interpreter} -m pip install .</translation>
    </message>
    <message>
      <source>This engine speaks protocol {theirs}, the plugin {ours}.</source>
      <translation>This engine speaks protocol {theirs}, the plugin {ours}.</translation>
    </message>
    <message>
      <source>The LTCHM engine crashed ({reason}). Nothing was written.</source>
      <translation>The LTCHM engine crashed ({reason}). Nothing was written.</translation>
    </message>
    <message>
      <source>{interpreter} has no LTCHM engine. Choose another Python under Settings &gt; Options &gt; LTCHM, or install the engine there.
{install}</source>
      <translation>{interpreter} has no LTCHM engine. Choose another Python under Settings &gt; Options &gt; LTCHM, or install the engine there.
{install}</translation>
    </message>
    <message>
      <source>{interpreter} does not answer as the LTCHM engine does (exit code {code}). Choose another Python under Settings &gt; Options &gt; LTCHM, or update the engine.
{install}</source>
      <translation>{interpreter} does not answer as the LTCHM engine does (exit code {code}). Choose another Python under Settings &gt; Options &gt; LTCHM, or update the engine.
{install}</translation>
    </message>
    <message>
      <source>Update the engine.</source>
      <translation>Update the engine.</translation>
    </message>
    <message>
      <source>Update this plugin.</source>
      <translation>Update this plugin.</translation>
    </message>
    <message>
      <source>The scene is complete, but it could not be measured: {reason}</source>
      <translation>The scene is complete, but it could not be measured: {reason}</translation>
    </message>
    <message>
      <source>{interpreter} cannot be started: {reason}. Choose the Python of the LTCHM engine under Settings &gt; Options &gt; LTCHM.</source>
      <translation>{interpreter} cannot be started: {reason}. Choose the Python of the LTCHM engine under Settings &gt; Options &gt; LTCHM.</translation>
    </message>
    <message>
      <source>LTCHM {version} works.
Python {python}, device {device} ({name}), protocol {protocol}
Weights: {weights}</source>
      <translation>LTCHM {version} works.
Python {python}, device {device} ({name}), protocol {protocol}
Weights: {weights}</translation>
    </message>
    <message>
      <source>Test engine</source>
      <translation>Test engine</translation>
    </message>
    <message>
      <source>Python interpreter</source>
      <translation>Python interpreter</translation>
    </message>
    <message>
      <source>Device</source>
      <translation>Device</translation>
    </message>
    <message>
      <source>Default quality</source>
      <translation>Default quality</translation>
    </message>
    <message>
      <source>Folder of previews</source>
      <translation>Folder of previews</translation>
    </message>
    <message>
      <source>Size of previews</source>
      <translation>Size of previews</translation>
    </message>
    <message>
      <source>Memory for decoded pixels, each</source>
      <translation>Memory for decoded pixels, each</translation>
    </message>
    <message>
      <source>Testing...</source>
      <translation>Testing...</translation>
    </message>
    <message>
      <source>Test of the LTCHM engine</source>
      <translation>Test of the LTCHM engine</translation>
    </message>
    <message>
      <source>{weights} (and {count} older for old scenes)</source>
      <translation>{weights} (and {count} older for old scenes)</translation>
    </message>
    <message>
      <source>Python that has the LTCHM engine</source>
      <translation>Python that has the LTCHM engine</translation>
    </message>
    <message>
      <source>Engine</source>
      <translation>Engine</translation>
    </message>
    <message>
      <source>Compressing</source>
      <translation>Compressing</translation>
    </message>
    <message>
      <source>Opened scenes</source>
      <translation>Opened scenes</translation>
    </message>
    <message>
      <source>Compress layer...</source>
      <translation>Compress layer...</translation>
    </message>
    <message>
      <source>Open compressed scene...</source>
      <translation>Open compressed scene...</translation>
    </message>
    <message>
      <source>Decompress to GeoTIFF...</source>
      <translation>Decompress to GeoTIFF...</translation>
    </message>
    <message>
      <source>About the compressed scene</source>
      <translation>About the compressed scene</translation>
    </message>
    <message>
      <source>Compressing needs the LTCHM engine</source>
      <translation>Compressing needs the LTCHM engine</translation>
    </message>
    <message>
      <source>This layer shows no compressed scene.</source>
      <translation>This layer shows no compressed scene.</translation>
    </message>
    <message>
      <source>The scene cannot be described</source>
      <translation>The scene cannot be described</translation>
    </message>
    <message>
      <source>{ratio} times smaller</source>
      <translation>{ratio} times smaller</translation>
    </message>
    <message>
      <source>Compressing {layer}</source>
      <translation>Compressing {layer}</translation>
    </message>
    <message>
      <source>File</source>
      <translation>File</translation>
    </message>
    <message>
      <source>{layer} (compressed)</source>
      <translation>{layer} (compressed)</translation>
    </message>
    <message>
      <source>{scene} was not opened</source>
      <translation>{scene} was not opened</translation>
    </message>
    <message>
      <source>Compressing {layer} failed</source>
      <translation>Compressing {layer} failed</translation>
    </message>
    <message>
      <source>Compressing {layer} was cancelled; nothing was written.</source>
      <translation>Compressing {layer} was cancelled; nothing was written.</translation>
    </message>
    <message>
      <source>The LTCHM engine ended at once.</source>
      <translation>The LTCHM engine ended at once.</translation>
    </message>
    <message>
      <source>The LTCHM engine of {scene} crashed. Remove the layer and open it again.</source>
      <translation>The LTCHM engine of {scene} crashed. Remove the layer and open it again.</translation>
    </message>
    <message>
      <source>The LTCHM engine of {scene} crashed and was started again.</source>
      <translation>The LTCHM engine of {scene} crashed and was started again.</translation>
    </message>
    <message>
      <source>The LTCHM engine did not start in time. Try again.</source>
      <translation>The LTCHM engine did not start in time. Try again.</translation>
    </message>
    <message>
      <source>QGIS cannot read {scene} through the engine.</source>
      <translation>QGIS cannot read {scene} through the engine.</translation>
    </message>
    <message>
      <source>The LTCHM engine was stopped.</source>
      <translation>The LTCHM engine was stopped.</translation>
    </message>
    <message>
      <source>The LTCHM engine did not answer in time.</source>
      <translation>The LTCHM engine did not answer in time.</translation>
    </message>
    <message>
      <source>The algorithm failed; the log of QGIS says why.</source>
      <translation>The algorithm failed; the log of QGIS says why.</translation>
    </message>
    <message>
      <source>exact</source>
      <translation>exact</translation>
    </message>
    <message>
      <source>{count} bytes</source>
      <translation>{count} bytes</translation>
    </message>
    <message>
      <source>PSNR {value} dB</source>
      <translation>PSNR {value} dB</translation>
    </message>
  </context>
</TS>
