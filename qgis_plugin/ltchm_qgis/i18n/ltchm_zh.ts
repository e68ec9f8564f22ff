<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="zh_CN" sourcelanguage="en">
  <context>
    <name>LTCHM</name>
    <message>
      <source>All files (*)</source>
      <translation>所有文件 (*)</translation>
    </message>
    <message>
      <source>Compressed scenes (*.ltchm)</source>
      <translation>压缩影像 (*.ltchm)</translation>
    </message>
    <message>
      <source>Compressed scenes (*.ltchm ltchm-manifest.json)</source>
      <translation>压缩影像 (*.ltchm ltchm-manifest.json)</translation>
    </message>
    <message>
      <source>Device (auto, cpu, cuda, cuda:1); as in the options if empty</source>
      <translation>计算设备（auto、cpu、cuda、cuda:1）；留空则按选项设置</translation>
    </message>
    <message>
      <source>Compressed scene</source>
      <translation>压缩影像</translation>
    </message>
    <message>
      <source>Approximate, by quality</source>
      <translation>近似（按质量）</translation>
    </message>
    <message>
      <source>No pixel off by more than</source>
      <translation>任何像素的误差不超过</translation>
    </message>
    <message>
      <source>Lossless</source>
      <translation>无损</translation>
    </message>
    <message>
      <source>Compress raster</source>
      <translation>压缩栅格</translation>
    </message>
    <message>
      <source>Compresses a raster with a learned codec. CRS, transform, band names, nodata, masks and tags are kept exactly, pixel values approximately: the higher the quality (1 to 100), the closer and the larger. 8 and 16 bit integers and floats, any number of bands.

Where approximately will not do, let no pixel be off by more than a largest error, in the unit of the data, or choose lossless: both make larger files. Class maps and flags need lossless.

A nodata value that you named in the layer's properties, under Transparency, is taken for the whole scene if the raster has none of its own.

Measuring decodes the result and reports the PSNR; it takes about as long as decompressing.

The outputs BYTES, RATIO, BPP (bits per pixel, all bands) and PSNR (mean over bands, in dB) are numbers for models.</source>
      <translation>用学习得到的编解码器压缩栅格。坐标参考系、仿射变换、波段名称、无数据值、掩膜和标签完全保留，像素值近似保留：质量（1 到 100）越高，越接近原图，文件也越大。支持 8 位和 16 位整数以及浮点数，波段数不限。

如果近似不够，可以保证任何像素的误差都不超过给定的最大值（以数据的单位计），或选择无损；两者都会使文件变大。分类图和标志位栅格需要无损。

如果在图层属性的“透明度”中指定了无数据值，而栅格本身没有，则整个影像都采用该值。

“测量损失”会解码结果并报告 PSNR，耗时与解压大致相同。

输出 BYTES、RATIO、BPP（每像素比特数，含全部波段）和 PSNR（各波段均值，单位 dB）都是数值，可用于模型。</translation>
    </message>
    <message>
      <source>Largest error, if that is guaranteed</source>
      <translation>最大误差（保证误差时）</translation>
    </message>
    <message>
      <source>Raster layer</source>
      <translation>栅格图层</translation>
    </message>
    <message>
      <source>Quality (1 to 100)</source>
      <translation>质量（1 到 100）</translation>
    </message>
    <message>
      <source>Guarantee</source>
      <translation>保证</translation>
    </message>
    <message>
      <source>Measure what was lost</source>
      <translation>测量损失</translation>
    </message>
    <message>
      <source>Size in bytes</source>
      <translation>大小（字节）</translation>
    </message>
    <message>
      <source>Compression ratio</source>
      <translation>压缩比</translation>
    </message>
    <message>
      <source>Bits per pixel</source>
      <translation>每像素比特数</translation>
    </message>
    <message>
      <source>Mean PSNR in dB</source>
      <translation>平均 PSNR（dB）</translation>
    </message>
    <message>
      <source>{size}, {ratio} times smaller than its pixels, {bpp} bits per pixel</source>
      <translation>{size}，为像素数据的 1/{ratio}，每像素 {bpp} 比特</translation>
    </message>
    <message>
      <source>{layer} is not available: its source cannot be opened.</source>
      <translation>{layer} 不可用：无法打开其数据源。</translation>
    </message>
    <message>
      <source>{layer} is a compressed scene already; compressing it again would only lose quality.</source>
      <translation>{layer} 已经是压缩影像；再次压缩只会损失质量。</translation>
    </message>
    <message>
      <source>{layer} does not come from a file ({provider}). Export it as a GeoTIFF first.</source>
      <translation>{layer} 不是来自文件（{provider}）。请先将其导出为 GeoTIFF。</translation>
    </message>
    <message>
      <source>{scene} is shown by a layer. Remove the layer, or choose another name.</source>
      <translation>{scene} 正由一个图层显示。请移除该图层，或选择其他名称。</translation>
    </message>
    <message>
      <source>band {band}: {psnr}, largest error {error}</source>
      <translation>波段 {band}：{psnr}，最大误差 {error}</translation>
    </message>
    <message>
      <source>Decompress to GeoTIFF</source>
      <translation>解压为 GeoTIFF</translation>
    </message>
    <message>
      <source>Restores a compressed scene, or the part of it inside an extent, as a GeoTIFF with everything the source had: CRS, transform, band names, nodata, masks, tags.

Bands are numbers from 1 such as 4,3,2; empty means all. Overview 0 is full resolution; how many smaller ones there are, "Compressed scene information" tells.</source>
      <translation>将压缩影像或其某一范围内的部分还原为 GeoTIFF，并保留源数据的全部信息：坐标参考系、仿射变换、波段名称、无数据值、掩膜、标签。

波段为从 1 开始的编号，例如 4,3,2；留空表示全部波段。概视图 0 为全分辨率；有多少级较小的概视图，可用“压缩影像信息”查看。</translation>
    </message>
    <message>
      <source>Bands, such as 4,3,2</source>
      <translation>波段，例如 4,3,2</translation>
    </message>
    <message>
      <source>Only this extent</source>
      <translation>仅限此范围</translation>
    </message>
    <message>
      <source>Overview (0: full resolution)</source>
      <translation>概视图级别（0：全分辨率）</translation>
    </message>
    <message>
      <source>Put nodata in place of damaged tiles instead of stopping</source>
      <translation>遇到损坏的瓦片时填入无数据值，而不是停止</translation>
    </message>
    <message>
      <source>Restored raster</source>
      <translation>还原的栅格</translation>
    </message>
    <message>
      <source>Damaged tiles</source>
      <translation>损坏的瓦片数</translation>
    </message>
    <message>
      <source>The scene has no position on the map: leave the extent empty.</source>
      <translation>该影像没有地图位置：请将范围留空。</translation>
    </message>
    <message>
      <source>{bands} is not a list of band numbers such as 4,3,2.</source>
      <translation>{bands} 不是波段编号列表，应类似 4,3,2。</translation>
    </message>
    <message>
      <source>The scene has no overview {level}.</source>
      <translation>该影像没有第 {level} 级概视图。</translation>
    </message>
    <message>
      <source>Compressed scene information</source>
      <translation>压缩影像信息</translation>
    </message>
    <message>
      <source>Tells size, bands, CRS, quality and weights of a compressed scene. Decodes no pixel.</source>
      <translation>报告压缩影像的大小、波段、坐标参考系、质量和权重。不解码任何像素。</translation>
    </message>
    <message>
      <source>Raster</source>
      <translation>栅格</translation>
    </message>
    <message>
      <source>Size</source>
      <translation>大小</translation>
    </message>
    <message>
      <source>Rate</source>
      <translation>码率</translation>
    </message>
    <message>
      <source>CRS</source>
      <translation>坐标参考系</translation>
    </message>
    <message>
      <source>Weights</source>
      <translation>权重</translation>
    </message>
    <message>
      <source>Made by</source>
      <translation>生成软件</translation>
    </message>
    <message>
      <source>Quality</source>
      <translation>质量</translation>
    </message>
    <message>
      <source>none</source>
      <translation>无</translation>
    </message>
    <message>
      <source>Report</source>
      <translation>报告</translation>
    </message>
    <message>
      <source>HTML files (*.html)</source>
      <translation>HTML 文件 (*.html)</translation>
    </message>
    <message>
      <source>Width in pixels</source>
      <translation>宽度（像素）</translation>
    </message>
    <message>
      <source>Height in pixels</source>
      <translation>高度（像素）</translation>
    </message>
    <message>
      <source>Number of bands</source>
      <translation>波段数</translation>
    </message>
    <message>
      <source>Data type</source>
      <translation>数据类型</translation>
    </message>
    <message>
      <source>{width} x {height} pixels, {bands} bands, {dtype}</source>
      <translation>{width} x {height} 像素，{bands} 个波段，{dtype}</translation>
    </message>
    <message>
      <source>{size}, {ratio} times smaller than its pixels</source>
      <translation>{size}，为像素数据的 1/{ratio}</translation>
    </message>
    <message>
      <source>{bpp} bits per pixel</source>
      <translation>每像素 {bpp} 比特</translation>
    </message>
    <message>
      <source>Open compressed scene</source>
      <translation>打开压缩影像</translation>
    </message>
    <message>
      <source>Opens a compressed scene as a raster layer. Pixels are decoded when something reads them, by an engine that runs until QGIS ends; nothing is written to disk. In a model, the output goes wherever a raster layer does.</source>
      <translation>将压缩影像作为栅格图层打开。像素在被读取时才由引擎解码，引擎一直运行到 QGIS 关闭；不向磁盘写入任何内容。在模型中，该输出可用于任何需要栅格图层的地方。</translation>
    </message>
    <message>
      <source>Layer</source>
      <translation>图层</translation>
    </message>
    <message>
      <source>Address</source>
      <translation>地址</translation>
    </message>
    <message>
      <source>Small</source>
      <translation>小体积</translation>
    </message>
    <message>
      <source>Balanced</source>
      <translation>均衡</translation>
    </message>
    <message>
      <source>Fine</source>
      <translation>精细</translation>
    </message>
    <message>
      <source>Compress layer</source>
      <translation>压缩图层</translation>
    </message>
    <message>
      <source>Open the compressed scene when it is done</source>
      <translation>完成后打开压缩影像</translation>
    </message>
    <message>
      <source>Estimate</source>
      <translation>估计</translation>
    </message>
    <message>
      <source>Save as</source>
      <translation>保存为</translation>
    </message>
    <message>
      <source>Compress</source>
      <translation>压缩</translation>
    </message>
    <message>
      <source>In the unit of the data, for every band.</source>
      <translation>以数据的单位计，适用于每个波段。</translation>
    </message>
    <message>
      <source>The higher, the closer to the original and the larger.</source>
      <translation>数值越高，越接近原图，文件越大。</translation>
    </message>
    <message>
      <source>The project has no raster layer.</source>
      <translation>工程中没有栅格图层。</translation>
    </message>
    <message>
      <source>Preview of compression</source>
      <translation>压缩预览</translation>
    </message>
    <message>
      <source>Estimating...</source>
      <translation>正在估计…</translation>
    </message>
    <message>
      <source>not available</source>
      <translation>不可用</translation>
    </message>
    <message>
      <source>no CRS</source>
      <translation>无坐标参考系</translation>
    </message>
    <message>
      <source>Previews cannot be stored in {folder}: {reason}</source>
      <translation>无法在 {folder} 中存储预览：{reason}</translation>
    </message>
    <message>
      <source>{scene} exists already. Replace it when the new one is complete?</source>
      <translation>{scene} 已存在。新文件完成后是否替换它？</translation>
    </message>
    <message>
      <source>about {size} ({low} to {high}), {ratio} times smaller than its pixels</source>
      <translation>约 {size}（{low} 至 {high}），为像素数据的 1/{ratio}</translation>
    </message>
    <message>
      <source>{width} x {height} pixels</source>
      <translation>{width} x {height} 像素</translation>
    </message>
    <message>
      <source>{count} bands</source>
      <translation>{count} 个波段</translation>
    </message>
    <message>
      <source>Original</source>
      <translation>原图</translation>
    </message>
    <message>
      <source>Restored</source>
      <translation>还原</translation>
    </message>
    <message>
      <source>nodata {values}</source>
      <translation>无数据值 {values}</translation>
    </message>
    <message>
      <source>the source file has {size}</source>
      <translation>源文件大小 {size}</translation>
    </message>
    <message>
      <source>{psnr} in the preview</source>
      <translation>预览部分 {psnr}</translation>
    </message>
    <message>
      <source>Difference, {times} times</source>
      <translation>差异（放大 {times} 倍）</translation>
    </message>
    <message>
      <source>Open the options</source>
      <translation>打开选项</translation>
    </message>
    <message>
      <source>Wheel: zoom. Drag: move. Double click: show all.</source>
      <translation>滚轮：缩放。拖动：移动。双击：显示全部。</translation>
    </message>
    <message>
      <source>The LTCHM engine was killed, perhaps because memory ran out. Nothing was written.</source>
      <translation>LTCHM 引擎被强制终止，可能是内存不足。没有写入任何内容。</translation>
    </message>
    <message>
      <source>The LTCHM engine is not installed yet. It has a Python of its own (3.11 or newer). Type in a terminal:
  {creator} -m venv {folder}
{install}
QGIS finds it there. Is it somewhere else? Say so under Settings &gt; Options &gt; LTCHM.</source>
      <translation>尚未安装 LTCHM 引擎。它使用独立的 Python（3.11 或更新版本）。请在终端中输入：
  {creator} -m venv {folder}
{install}
QGIS 会自动找到它。如果装在别处，请在“设置 &gt; 选项 &gt; LTCHM”中指定。</translation>
    </message>
    <message>
      <source>In a checkout of ltchm_geo:
  {interpreter} -m pip install .</source>
      <translation>在 ltchm_geo 源代码目录中运行：
  {interpreter} -m pip install .</translation>
    </message>
    <message>
      <source>This engine speaks protocol {theirs}, the plugin {ours}.</source>
      <translation>该引擎使用协议 {theirs}，插件使用协议 {ours}。</translation>
    </message>
    <message>
      <source>The LTCHM engine crashed ({reason}). Nothing was written.</source>
      <translation>LTCHM 引擎崩溃（{reason}）。没有写入任何内容。</translation>
    </message>
    <message>
      <source>{interpreter} has no LTCHM engine. Choose another Python under Settings &gt; Options &gt; LTCHM, or install the engine there.
{install}</source>
      <translation>{interpreter} 中没有 LTCHM 引擎。请在“设置 &gt; 选项 &gt; LTCHM”中选择另一个 Python，或在其中安装引擎。
{install}</translation>
    </message>
    <message>
      <source>{interpreter} does not answer as the LTCHM engine does (exit code {code}). Choose another Python under Settings &gt; Options &gt; LTCHM, or update the engine.
{install}</source>
      <translation>{interpreter} 的应答不像 LTCHM 引擎（退出代码 {code}）。请在“设置 &gt; 选项 &gt; LTCHM”中选择另一个 Python，或更新引擎。
{install}</translation>
    </message>
    <message>
      <source>Update the engine.</source>
      <translation>请更新引擎。</translation>
    </message>
    <message>
      <source>Update this plugin.</source>
      <translation>请更新本插件。</translation>
    </message>
    <message>
      <source>The scene is complete, but it could not be measured: {reason}</source>
      <translation>影像已完整写入，但无法测量：{reason}</translation>
    </message>
    <message>
      <source>{interpreter} cannot be started: {reason}. Choose the Python of the LTCHM engine under Settings &gt; Options &gt; LTCHM.</source>
      <translation>无法启动 {interpreter}：{reason}。请在“设置 &gt; 选项 &gt; LTCHM”中选择 LTCHM 引擎所用的 Python。</translation>
    </message>
    <message>
      <source>LTCHM {version} works.
Python {python}, device {device} ({name}), protocol {protocol}
Weights: {weights}</source>
      <translation>LTCHM {version} 工作正常。
Python {python}，设备 {device}（{name}），协议 {protocol}
权重：{weights}</translation>
    </message>
    <message>
      <source>Test engine</source>
      <translation>测试引擎</translation>
    </message>
    <message>
      <source>Python interpreter</source>
      <translation>Python 解释器</translation>
    </message>
    <message>
      <source>Device</source>
      <translation>计算设备</translation>
    </message>
    <message>
      <source>Default quality</source>
      <translation>默认质量</translation>
    </message>
    <message>
      <source>Folder of previews</source>
      <translation>预览文件夹</translation>
    </message>
    <message>
      <source>Size of previews</source>
      <translation>预览占用上限</translation>
    </message>
    <message>
      <source>Memory for decoded pixels, each</source>
      <translation>每个影像的解码像素内存</translation>
    </message>
    <message>
      <source>Testing...</source>
      <translation>正在测试…</translation>
    </message>
    <message>
      <source>Test of the LTCHM engine</source>
      <translation>测试 LTCHM 引擎</translation>
    </message>
    <message>
      <source>{weights} (and {count} older for old scenes)</source>
      <translation>{weights}（另有 {count} 个旧权重，用于旧影像）</translation>
    </message>
    <message>
      <source>Python that has the LTCHM engine</source>
      <translation>装有 LTCHM 引擎的 Python</translation>
    </message>
    <message>
      <source>Engine</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Compressing</source>
      <translation>压缩</translation>
    </message>
    <message>
      <source>Opened scenes</source>
      <translation>打开的影像</translation>
    </message>
    <message>
      <source>Compress layer...</source>
      <translation>压缩图层…</translation>
    </message>
    <message>
      <source>Open compressed scene...</source>
      <translation>打开压缩影像…</translation>
    </message>
    <message>
      <source>Decompress to GeoTIFF...</source>
      <translation>解压为 GeoTIFF…</translation>
    </message>
    <message>
      <source>About the compressed scene</source>
      <translation>关于此压缩影像</translation>
    </message>
    <message>
      <source>Compressing needs the LTCHM engine</source>
      <translation>压缩需要 LTCHM 引擎</translation>
    </message>
    <message>
      <source>This layer shows no compressed scene.</source>
      <translation>此图层显示的不是压缩影像。</translation>
    </message>
    <message>
      <source>The scene cannot be described</source>
      <translation>无法描述该影像</translation>
    </message>
    <message>
      <source>{ratio} times smaller</source>
      <translation>压缩 {ratio} 倍</translation>
    </message>
    <message>
      <source>Compressing {layer}</source>
      <translation>正在压缩 {layer}</translation>
    </message>
    <message>
      <source>File</source>
      <translation>文件</translation>
    </message>
    <message>
      <source>{layer} (compressed)</source>
      <translation>{layer}（已压缩）</translation>
    </message>
    <message>
      <source>{scene} was not opened</source>
      <translation>未能打开 {scene}</translation>
    </message>
    <message>
      <source>Compressing {layer} failed</source>
      <translation>压缩 {layer} 失败</translation>
    </message>
    <message>
      <source>Compressing {layer} was cancelled; nothing was written.</source>
      <translation>已取消压缩 {layer}；没有写入任何内容。</translation>
    </message>
    <message>
      <source>The LTCHM engine ended at once.</source>
      <translation>LTCHM 引擎启动后立即退出。</translation>
    </message>
    <message>
      <source>The LTCHM engine of {scene} crashed. Remove the layer and open it again.</source>
      <translation>{scene} 的 LTCHM 引擎崩溃。请移除该图层后重新打开。</translation>
    </message>
    <message>
      <source>The LTCHM engine of {scene} crashed and was started again.</source>
      <translation>{scene} 的 LTCHM 引擎崩溃，已重新启动。</translation>
    </message>
    <message>
      <source>The LTCHM engine did not start in time. Try again.</source>
      <translation>LTCHM 引擎未能及时启动。请重试。</translation>
    </message>
    <message>
      <source>QGIS cannot read {scene} through the engine.</source>
      <translation>QGIS 无法通过引擎读取 {scene}。</translation>
    </message>
    <message>
      <source>The LTCHM engine was stopped.</source>
      <translation>LTCHM 引擎已被停止。</translation>
    </message>
    <message>
      <source>The LTCHM engine did not answer in time.</source>
      <translation>LTCHM 引擎未能及时应答。</translation>
    </message>
    <message>
      <source>The algorithm failed; the log of QGIS says why.</source>
      <translation>算法失败；原因见 QGIS 日志。</translation>
    </message>
    <message>
      <source>exact</source>
      <translation>无损</translation>
    </message>
    <message>
      <source>{count} bytes</source>
      <translation>{count} 字节</translation>
    </message>
    <message>
      <source>PSNR {value} dB</source>
      <translation>PSNR {value} dB</translation>
    </message>
  </context>
</TS>
