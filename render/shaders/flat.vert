#version 330 core
// Corners in the camera's frame, their light worked out on the CPU (render/lighting.py) and carried as a colour.

layout(location = 0) in vec3 position;
#ifdef TEXCOORD_0_LOC
layout(location = TEXCOORD_0_LOC) in vec2 texcoord_0;
out vec2 uv;
#endif
layout(location = COLOR_0_LOC) in vec4 color_0;
layout(location = INST_M_LOC) in mat4 inst_m;
uniform mat4 M;
uniform mat4 V;
uniform mat4 P;
out vec3 light;

void main()
{
    gl_Position = P * V * M * inst_m * vec4(position, 1.0);
    light = color_0.rgb;
#ifdef TEXCOORD_0_LOC
    uv = texcoord_0;
#endif
}
