// Keypoints and codes of a picture by OpenCV alone, after docs/patch.md; codes.onnx is of `bingan export codes.onnx`.
//   g++ -O2 -std=c++17 describe.cpp -o describe $(pkg-config --cflags --libs opencv4)
//   ./describe codes.onnx PICTURE > features.txt       a line a keypoint: x y size angle code, the code in hexadecimal
#include <cmath>
#include <cstdio>
#include <opencv2/dnn.hpp>
#include <opencv2/features2d.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

const int CELLS = 32, BATCH = 256;
const float SUPPORT = 6;  // half the side over the size: 6 for SIFT and other blobs, 0.65 for ORB, 2 for FAST

std::vector<cv::Mat> build_pyramid(const cv::Mat& grey) {
  std::vector<cv::Mat> levels(1);
  grey.convertTo(levels[0], CV_32F, 1.0 / 255);
  while (std::min(levels.back().rows, levels.back().cols) >= CELLS) {
    cv::Mat next;
    cv::resize(levels.back(), next, cv::Size(levels.back().cols / 2, levels.back().rows / 2), 0, 0, cv::INTER_AREA);
    levels.push_back(next);
  }
  return levels;
}

cv::Mat cut_patch(const std::vector<cv::Mat>& levels, const cv::KeyPoint& keypoint) {
  const double half = SUPPORT * keypoint.size, angle = keypoint.angle == -1 ? 0 : keypoint.angle * CV_PI / 180;
  const int wanted = int(std::nearbyint(std::log2(2 * half / CELLS)));
  const cv::Mat& level = levels[std::min(std::max(wanted, 0), int(levels.size()) - 1)];
  // Positions scale about the corner of the picture; levels of odd sizes are not exactly half as large.
  const double sx = double(level.cols) / levels[0].cols, sy = double(level.rows) / levels[0].rows;
  cv::Mat x(CELLS, CELLS, CV_32F), y(CELLS, CELLS, CV_32F), patch;
  for (int i = 0; i < CELLS; i++) {
    for (int j = 0; j < CELLS; j++) {
      const double along = (2 * j + 1.0) / CELLS - 1, across = (2 * i + 1.0) / CELLS - 1;
      const double dx = std::cos(angle) * along - std::sin(angle) * across;
      const double dy = std::sin(angle) * along + std::cos(angle) * across;
      x.at<float>(i, j) = float((keypoint.pt.x + 0.5) * sx - 0.5 + half * sx * dx);
      y.at<float>(i, j) = float((keypoint.pt.y + 0.5) * sy - 0.5 + half * sy * dy);
    }
  }
  cv::remap(level, patch, x, y, cv::INTER_LINEAR, cv::BORDER_REPLICATE);
  return patch;
}

int main(int argc, char** argv) {
  const cv::Mat grey = argc == 3 ? cv::imread(argv[2], cv::IMREAD_GRAYSCALE) : cv::Mat();
  if (grey.empty()) return std::fprintf(stderr, "usage: describe codes.onnx PICTURE\n"), 2;
  std::vector<cv::KeyPoint> keypoints;
  cv::SIFT::create(4096)->detect(grey, keypoints);
  const std::vector<cv::Mat> levels = build_pyramid(grey);
  cv::dnn::Net network = cv::dnn::readNetFromONNX(argv[1]);
  for (size_t start = 0; start < keypoints.size(); start += BATCH) {
    const int count = int(std::min(keypoints.size() - start, size_t(BATCH)));
    cv::Mat patches(std::vector<int>{count, 1, CELLS, CELLS}, CV_32F), codes;
    for (int k = 0; k < count; k++)
      cut_patch(levels, keypoints[start + k]).copyTo(cv::Mat(CELLS, CELLS, CV_32F, patches.ptr<float>(k)));
    network.setInput(patches);
    network.forward("codes").convertTo(codes, CV_8U);  // OpenCV 4 gives the bytes as floats
    for (int k = 0; k < count; k++) {
      const cv::KeyPoint& each = keypoints[start + k];
      std::printf("%.9g %.9g %.9g %.9g ", each.pt.x, each.pt.y, each.size, each.angle);
      for (int byte = 0; byte < codes.cols; byte++) std::printf("%02x", codes.at<uchar>(k, byte));
      std::printf("\n");
    }
  }
  return 0;
}
